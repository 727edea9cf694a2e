//! A bundle endpoint: one HTTPS server on this machine that answers as it is told.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::pki::Leaf;

#[derive(Clone)]
pub(crate) enum Answer {
    Document(String),
    Redirect(String),
    Status(u16),
}

pub(crate) struct Endpoint {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Mutex<Arc<ServerConfig>>,
    answer: Mutex<Answer>,
    hits: AtomicUsize,
    down: AtomicBool,
}

impl Endpoint {
    pub(crate) fn start(leaf: &Leaf, answer: Answer) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            tls: Mutex::new(tls(leaf)),
            answer: Mutex::new(answer),
            hits: AtomicUsize::new(0),
            down: AtomicBool::new(false),
        });
        let its = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if its.down.load(Ordering::SeqCst) {
                    continue;
                }
                let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&its.tls.lock())).unwrap(), stream.unwrap());
                let its = Arc::clone(&its);
                std::thread::spawn(move || its.serve(&mut tls));
            }
        });
        Endpoint { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}/bundle", self.port)
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.shared.answer.lock() = answer;
    }

    pub(crate) fn become_other(&self, leaf: &Leaf) {
        *self.shared.tls.lock() = tls(leaf);
    }

    /// Hangs up on everybody from now on.
    pub(crate) fn go_down(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
    }

    /// Requests that were answered.
    pub(crate) fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, stream: &mut StreamOwned<ServerConnection, std::net::TcpStream>) {
        let mut request = Vec::new();
        let mut byte = [0; 1];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        assert!(request.starts_with(b"GET /bundle HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&request));
        self.hits.fetch_add(1, Ordering::SeqCst);
        let (head, body) = match self.answer.lock().clone() {
            Answer::Document(text) => ("200 OK\r\ncontent-type: application/json".to_owned(), text),
            Answer::Redirect(to) => (format!("307 Temporary Redirect\r\nlocation: {to}"), String::new()),
            Answer::Status(status) => (format!("{status} No"), String::new()),
        };
        let length = body.len();
        let _ = write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

fn tls(leaf: &Leaf) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(leaf.chain.clone(), leaf.key()).unwrap())
}
