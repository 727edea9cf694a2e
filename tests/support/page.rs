//! A page of the documentation as a reader follows it: each `$` line in one shell that begins in an empty folder, and each
//! program that runs until Ctrl-C in a terminal of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::BIN;

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the shell prints after each command, with its exit code.
const MARK: &str = "--mayfly-walk--";
/// Ports that pages name; each page gets free ones in their place.
const PORTS: [&str; 4] = ["8443", "8500", "9464", "9191"];
/// What a program says when others can use it: `dev`, `serve` and `guard`, `relay`, `watch`.
const READY: [&str; 4] = ["ready", "relaying", "heartbeat", "keeping"];

/// One `$` line.
pub(crate) struct Line {
    /// Of the page, counted from 1.
    number: usize,
    /// With its comment, which the shell skips.
    text: String,
    /// The exit code that the comment announces, otherwise 0.
    exit: i32,
    /// `runs until Ctrl-C`: it occupies a terminal of its own to the end of the page.
    stays: bool,
    /// `after Ctrl-C`: such programs are stopped before it.
    after_stop: bool,
}

pub(crate) struct Page {
    name: String,
    pub(crate) lines: Vec<Line>,
}

/// The README and all pages.
pub(crate) fn files() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("README.md")];
    for dir in ["src/docs", "agent-sdk/docs", "loadtest/docs"] {
        let mut pages: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        pages.sort();
        found.append(&mut pages);
    }
    found
}

impl Page {
    pub(crate) fn read(file: &Path) -> Page {
        let name = file.display().to_string();
        let mut lines = Vec::new();
        let mut block: Option<String> = None;
        for (at, text) in fs::read_to_string(file).unwrap().lines().enumerate() {
            if let Some(language) = text.strip_prefix("```") {
                block = if block.is_some() { None } else { Some(language.to_owned()) };
            } else if let (Some(language), Some(command)) = (&block, text.strip_prefix("$ ")) {
                assert_eq!(language, "console", "{name}:{}: `$` lines stand in `console` blocks", at + 1);
                lines.push(Line::new(at + 1, command));
            }
        }
        Page { name, lines }
    }

    /// Runs the page from an empty folder.
    pub(crate) fn run(&self) {
        if self.lines.is_empty() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<(&str, String)> = PORTS.iter().map(|port| (*port, free_port())).collect();
        let mut shell = Shell::start(dir.path());
        let mut terminals = Terminals(Vec::new());
        for line in &self.lines {
            let at = format!("{}:{}: {}", self.name, line.number, line.text);
            if line.is_skipped() {
                continue;
            }
            let text = ports.iter().fold(line.text.clone(), |text, (from, to)| text.replace(from, to));
            if line.after_stop {
                terminals.stop(&at);
            }
            if line.stays {
                terminals.open(dir.path(), &text, &at);
                continue;
            }
            let (exit, output) = shell.run(&text, &at);
            println!("{at}\n{output}");
            assert_eq!(exit, line.exit, "{at}\n{output}");
            use_free_ports(&dir.path().join("mayfly.toml"), &ports);
        }
        terminals.stop(&self.name);
    }
}

impl Line {
    fn new(number: usize, text: &str) -> Line {
        let comment = text.rsplit_once(" # ").map_or("", |(_, comment)| comment);
        let exit = comment.split_once("exits ").map_or(0, |(_, rest)| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        });
        let (stays, after_stop) = (comment.contains("runs until Ctrl-C"), comment.contains("after Ctrl-C"));
        Line { number, text: text.to_owned(), exit, stays, after_stop }
    }

    /// Whether this machine lacks what the command needs; never in CI.
    fn is_skipped(&self) -> bool {
        let lacks = if self.text.contains("openssl ") && Command::new("openssl").arg("version").output().is_err() {
            "openssl is not installed"
        } else if self.text.starts_with("mayfly run ") && !cfg!(target_os = "linux") {
            "`mayfly run` needs Linux"
        } else {
            return false;
        };
        assert!(std::env::var_os("MAYFLY_CI").is_none(), "{lacks}");
        println!("SKIPPED: {lacks}: {}", self.text);
        true
    }
}

/// A shell with the binary in its path. What a line exports holds for the lines below it.
struct Shell {
    child: Child,
    output: mpsc::Receiver<String>,
}

impl Shell {
    fn start(dir: &Path) -> Shell {
        let mut child = command(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "exec 2>&1").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, output) = mpsc::channel();
        thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Shell { child, output }
    }

    /// Runs one line; its exit code and what it printed.
    fn run(&mut self, line: &str, at: &str) -> (i32, String) {
        let quoted = line.replace('\'', "'\\''");
        // Its standard input is not the script.
        let script = format!("eval '{quoted}' </dev/null; printf '\\n%s %s\\n' '{MARK}' $?");
        writeln!(self.child.stdin.as_mut().unwrap(), "{script}").unwrap();
        let (started, mut printed) = (Instant::now(), String::new());
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            let Ok(next) = self.output.recv_timeout(left) else { panic!("{at}: no end\n{printed}") };
            if let Some(code) = next.strip_prefix(MARK) {
                return (code.trim().parse().unwrap(), printed);
            }
            printed += &next;
            printed.push('\n');
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Programs that run until Ctrl-C.
struct Terminals(Vec<Child>);

impl Terminals {
    /// Starts a program and waits until it says that it is ready.
    fn open(&mut self, dir: &Path, text: &str, at: &str) {
        let log = dir.join(format!("terminal-{}.log", self.0.len()));
        let out = fs::File::options().create(true).append(true).open(&log).unwrap();
        let err = out.try_clone().unwrap();
        let mut command = command(dir);
        // As a terminal starts it, also where whoever runs the tests ignores Ctrl-C, as a shell does in the background.
        command.arg("-c").arg(format!("exec env --default-signal=INT {text}")).stdin(Stdio::null()).stdout(out).stderr(err);
        self.0.push(command.spawn().unwrap());
        let started = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap();
            if READY.iter().any(|word| said.contains(word)) {
                return;
            }
            let ended = self.0.last_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "{at}: not ready\n{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ctrl-C in each, the last one first.
    fn stop(&mut self, at: &str) {
        while let Some(mut child) = self.0.pop() {
            assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success(), "{at}");
            let started = Instant::now();
            while child.try_wait().unwrap().is_none() {
                assert!(started.elapsed() < PATIENCE, "{at}: goes on after Ctrl-C");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Terminals {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn command(dir: &Path) -> Command {
    let mut path = std::ffi::OsString::from(Path::new(BIN).parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.current_dir(dir).env("PATH", path);
    command.env("XDG_CONFIG_HOME", dir.join("config"));
    for name in ["MAYFLY_HOME", "MAYFLY_SERVER", "MAYFLY_CONTEXT", "SPIFFE_ENDPOINT_SOCKET"] {
        command.env_remove(name);
    }
    command
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// The configuration that a page has written names ports, also as defaults in comments.
fn use_free_ports(config: &Path, ports: &[(&str, String)]) {
    let Ok(text) = fs::read_to_string(config) else { return };
    let http = text.replace("# listen = \"127.0.0.1:9464\"", "listen = \"127.0.0.1:9464\"");
    let text = ports.iter().fold(http, |text, (from, to)| text.replace(&format!(":{from}"), &format!(":{to}")));
    fs::write(config, text).unwrap();
}
