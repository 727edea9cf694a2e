//! What `mayfly run` adds to a command: `true` and `mayfly run … -- true` in turns, and beside them each part that an identity
//! costs. `cargo bench -p mayfly --bench launch`
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mayfly::folder::{self, Key};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use support::{BIN, Dev, ORCHESTRATOR, channel};

const ROUNDS: usize = 60;
const RUN: &str = "run --class researcher --user-token demo.jwt -- true";
const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --out spawned";

fn run(dev: &Dev, program: &str, line: &str) -> Duration {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).current_dir(dev.dir.path()).env_remove("MAYFLY_HOME");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    assert!(command.status().unwrap().success(), "{program} {line}");
    started.elapsed()
}

/// A process's first random number, as it times that itself: AWS-LC gathers entropy from the jitter of the clock before it.
fn first_random() -> Duration {
    let out = Command::new(std::env::current_exe().unwrap()).arg("--random").output().unwrap();
    Duration::from_nanos(String::from_utf8(out.stdout).unwrap().trim().parse().unwrap())
}

/// Connecting as the workload, spawning, and connecting as the agent to end it: as `run` does, in one process.
async fn parts(dev: &Dev) -> [Duration; 3] {
    let started = Instant::now();
    let spawner = channel(dev, Some(ORCHESTRATOR)).await;
    let connected = Instant::now();
    let key = Key::new().unwrap();
    let request = v1::SpawnRequest {
        class: "researcher".into(),
        csr: key.csr.clone(),
        user_token: dev.file("demo.jwt"),
        ..Default::default()
    };
    let got = IdentitiesClient::new(spawner).spawn(request).await.unwrap().into_inner();
    let spawned = Instant::now();
    folder::write(&dev.path("part"), &key, &got.svid.unwrap(), &got.bundle.unwrap(), None).unwrap();
    let written = Instant::now();
    IdentitiesClient::new(channel(dev, Some("part")).await).end(v1::EndRequest::default()).await.unwrap();
    [connected - started, spawned - connected, written.elapsed()]
}

fn measure() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let what = [
        "true",
        "mayfly run … -- true",
        "mayfly --version: the program's own start",
        "mayfly spawn: an identity into a folder",
        "a process's first random number",
        "connect and verify both ends",
        "spawn, to its answer",
        "connect as the agent, and end it",
    ];
    let mut times = vec![Vec::new(); what.len()];
    for _ in 0..ROUNDS {
        times[0].push(run(&dev, "true", ""));
        times[1].push(run(&dev, BIN, RUN));
        times[2].push(run(&dev, BIN, "--version"));
        times[3].push(run(&dev, BIN, SPAWN));
        times[4].push(first_random());
        for (n, time) in runtime.block_on(parts(&dev)).into_iter().enumerate() {
            times[5 + n].push(time);
        }
    }
    let mut medians = Vec::new();
    for (what, times) in what.iter().zip(times) {
        let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let at = |part: usize| ms[(ms.len() * part / 100).min(ms.len() - 1)];
        println!("{what:<44} p10 {:>7.2}  p50 {:>7.2}  p90 {:>7.2} ms", at(10), at(50), at(90));
        medians.push(at(50));
    }
    let accounted = medians[0] + medians[2] + medians[4..].iter().sum::<f64>();
    println!(
        "run is {:.1} times `true`: {:.2} ms more, of which {:.2} ms are none of these parts (socket, tree, the end of the process)",
        medians[1] / medians[0],
        medians[1] - medians[0],
        medians[1] - accounted
    );
}

fn main() {
    // Also when tests ask for it, which is not to measure.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    if std::env::args().any(|arg| arg == "--random") {
        let started = Instant::now();
        aws_lc_rs::rand::fill(&mut [0]).unwrap();
        println!("{}", started.elapsed().as_nanos());
        return;
    }
    measure();
}
