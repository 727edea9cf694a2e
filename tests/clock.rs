//! A whole issuer on a machine whose clock leaps: what it tells, what it goes on doing, and how it heals.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly::acts::configure::{Configure, configure};
use mayfly::app;
use mayfly::clock::{Clock, SECOND};
use mayfly::config::Config;

/// Both clocks of a machine, which a thread keeps going.
struct Machine {
    wall: Arc<AtomicU64>,
    clock: Clock,
}

impl Machine {
    fn start() -> Machine {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let wall = Arc::new(AtomicU64::new(u64::try_from(now.as_micros()).unwrap()));
        let passed = Arc::new(AtomicU64::new(SECOND));
        let clock = Clock::machine(Arc::clone(&wall), Arc::clone(&passed));
        let (weak, its_wall) = (Arc::downgrade(&passed), Arc::clone(&wall));
        std::thread::spawn(move || {
            let mut last = Instant::now();
            while let Some(passed) = weak.upgrade() {
                let since = u64::try_from(last.elapsed().as_micros()).unwrap();
                last += Duration::from_micros(since);
                its_wall.fetch_add(since, Ordering::SeqCst);
                passed.fetch_add(since, Ordering::SeqCst);
                drop(passed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Machine { wall, clock }
    }
}

fn config(home: &Path) -> Config {
    Config::dev(home, "127.0.0.1:0".parse().unwrap(), None).unwrap()
}

fn get(at: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(at.parse::<SocketAddr>().unwrap()).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Copies a folder with its files, and no sockets.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Waits for an answer of `/readyz?verbose` that is as expected.
async fn until(at: &str, status: &str, part: &str) {
    let began = Instant::now();
    loop {
        let its = at.to_owned();
        let answer = tokio::task::spawn_blocking(move || get(&its, "/readyz?verbose")).await.unwrap();
        if answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(part) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t132_t133_t137_a_leap_of_the_clock_is_told_and_heals_and_a_start_far_ahead_is_refused() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::start());
    let home = dir.path().join("home");
    let running = app::start(config(&home), true, machine.clock.clone()).await.unwrap();
    let (http, ledger) = (running.endpoint.http.clone(), running.issuer.ledger.clone());
    until(&http, "200", "[+] clock: ok").await;

    let leap = 3600 * SECOND;
    machine.wall.fetch_add(leap, Ordering::SeqCst);
    until(&http, "503", "ahead of the time that has passed").await;
    let metrics = get(&http, "/metrics");
    let lead = metrics.lines().find_map(|line| line.strip_prefix("mayfly_clock_lead_seconds ")).unwrap();
    assert!((lead.parse::<f64>().unwrap() - 3600.0).abs() < 1.0, "{lead}");
    // The feed goes on in the issuer's own time, and so do its records.
    let joined = tokio::task::spawn_blocking({
        let ledger = ledger.clone();
        move || configure(&ledger, Configure { classes: [9; 32], written: [0; 32] })
    });
    joined.await.unwrap().unwrap();
    let right = machine.wall.load(Ordering::SeqCst) - leap;
    assert!(ledger.read(|state| state.at) <= right + SECOND);

    machine.wall.fetch_sub(leap, Ordering::SeqCst);
    until(&http, "200", "[+] clock: ok").await;
    running.stop().await;
    // In one process the first issuer's threads still hold its journal.
    let (first, home) = (home, dir.path().join("again"));
    copy(&first, &home);

    // Eleven years: more than even a development issuer is ever stopped.
    let far = 11 * 365 * 86_400 * SECOND;
    machine.wall.fetch_add(far, Ordering::SeqCst);
    let refused = app::start(config(&home), true, machine.clock.clone()).await.err().unwrap();
    assert!(refused.contains("ahead of the last time") && refused.contains("--accept-clock"), "{refused}");
    machine.wall.fetch_sub(far + 3600 * SECOND, Ordering::SeqCst);
    let refused = app::start(config(&home), true, machine.clock.clone()).await.err().unwrap();
    assert!(refused.contains("behind the journal") && refused.contains("mayfly journal repair-time"), "{refused}");
    machine.wall.fetch_add(3600 * SECOND, Ordering::SeqCst);

    // A watermark that cannot be read, or is missing, is not none.
    let (beat, aside) = (home.join("heartbeat.json"), home.join("aside"));
    std::fs::rename(&beat, &aside).unwrap();
    let refused = app::start(config(&home), true, machine.clock.clone()).await.err().unwrap();
    assert!(refused.contains("heartbeat.json") && refused.contains("missing"), "t137: {refused}");
    std::fs::create_dir(&beat).unwrap();
    let refused = app::start(config(&home), true, machine.clock.clone()).await.err().unwrap();
    assert!(refused.contains("cannot be read"), "t137: {refused}");
    std::fs::remove_dir(&beat).unwrap();
    std::fs::rename(&aside, &beat).unwrap();
    app::start(config(&home), true, machine.clock.clone()).await.unwrap().stop().await;
}
