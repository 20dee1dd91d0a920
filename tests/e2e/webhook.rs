//! Who is told in the end: a receiver of Alertmanager's webhooks.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::Deserialize;

/// One alert of one message.
#[derive(Debug, Clone)]
pub struct Told {
    pub at: Instant,
    /// `pager`, `tickets` or `monitoring`.
    pub receiver: String,
    pub alert: Alert,
}

/// As Alertmanager writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Alert {
    /// `firing` or `resolved`.
    pub status: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Message {
    alerts: Vec<Alert>,
}

/// Listens until the test ends.
pub struct Webhook {
    pub address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Webhook {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let sink = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Alertmanager says again what has not been answered.
                if let Ok(messages) = stream.and_then(receive) {
                    sink.lock().unwrap().extend(messages);
                }
            }
        });
        Self { address, told }
    }

    /// All that was told, oldest first.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

/// Reads one POST and answers it.
fn receive(mut stream: TcpStream) -> io::Result<Vec<Told>> {
    let at = Instant::now();
    let mut reader = BufReader::new(&stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.to_ascii_lowercase());
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.ok_or_else(|| io::Error::other("no length"))?;
    let mut body = vec![0; length.trim().parse().unwrap()];
    reader.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let receiver = head[0].split_whitespace().nth(1).expect("a path").trim_start_matches('/').to_owned();
    let message: Message = serde_json::from_slice(&body).unwrap();
    let told = |alert| Told { at, receiver: receiver.clone(), alert };
    Ok(message.alerts.into_iter().map(told).collect())
}
