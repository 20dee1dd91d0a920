//! A scraper: plain HTTP/1.1 over one connection that is kept alive, as Prometheus does it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::Result;

/// How long a server may take to listen.
const STARTS_IN: Duration = Duration::from_secs(10);
/// How often it is tried until then.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Name in the report.
    pub name: &'static str,
    /// `Accept`
    accept: &'static str,
    /// `Accept-Encoding`
    encoding: &'static str,
}

/// Every form a scrape can have.
pub const FORMS: [Form; 4] = [
    Form { name: "OpenMetrics", accept: OPENMETRICS, encoding: "identity" },
    Form { name: "OpenMetrics, gzip", accept: OPENMETRICS, encoding: "gzip" },
    CLASSIC,
    Form { name: "classic, gzip", accept: CLASSIC.accept, encoding: "gzip" },
];
/// The form that can be read without more ado.
pub const CLASSIC: Form = Form { name: "classic", accept: "text/plain;version=0.0.4", encoding: "identity" };
const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";

/// An address on loopback where nobody listens.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A connection to a server.
#[derive(Debug)]
pub struct Scraper(BufReader<TcpStream>);

impl Scraper {
    /// Connects as soon as somebody listens at `address`.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let give_up = Instant::now() + STARTS_IN;
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self(BufReader::new(stream)));
                }
                Err(error) if Instant::now() >= give_up => {
                    return Err(format!("nobody listens at {address}: {error}").into());
                }
                Err(_) => std::thread::sleep(RETRY_EVERY),
            }
        }
    }

    /// Scrapes once: the body, and the time from the first byte sent to the last received.
    pub fn scrape(&mut self, form: Form) -> Result<(Vec<u8>, Duration)> {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {}\r\nAccept-Encoding: {}\r\n\r\n",
            form.accept, form.encoding
        );
        let clock = Instant::now();
        self.0.get_mut().write_all(request.as_bytes())?;
        let body = self.answer()?;
        Ok((body, clock.elapsed()))
    }

    fn answer(&mut self) -> Result<Vec<u8>> {
        let status = self.line()?;
        if !status.starts_with("HTTP/1.1 200 ") {
            return Err(format!("the answer is {status}").into());
        }
        let mut body = Vec::new();
        let mut is_chunked = false;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            } else if let Some(length) = line.strip_prefix("content-length:") {
                body.resize(length.trim().parse()?, 0);
            } else if line == "transfer-encoding: chunked" {
                is_chunked = true;
            }
        }
        if is_chunked {
            self.chunks(&mut body)?;
        } else {
            self.0.read_exact(&mut body)?;
        }
        if body.is_empty() { Err("an empty answer".into()) } else { Ok(body) }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        loop {
            let length = usize::from_str_radix(&self.line()?, 16)?;
            let start = body.len();
            body.resize(start + length, 0);
            self.0.read_exact(&mut body[start..])?;
            self.line()?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}
