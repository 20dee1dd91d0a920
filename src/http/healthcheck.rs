//! Asking the running daemon whether it is well, for container health checks.

use super::client::{Stream, secure, wants_certificate};
use super::reload::WebConfigFile;
use super::web_config::{WebConfigError, wants_tls};
use crate::config::{ListenAddress, UnknownHost};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// From connecting to the end of the answer. The answer costs the daemon microseconds; the usual health
/// check of a container gives up after some seconds itself.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How much of the answer is read: its status line and its one line of text fit many times.
const MAX_ANSWER: u64 = 4096;

const REQUEST: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\
    User-Agent: skmem-exporter-healthcheck\r\nConnection: close\r\n\r\n";

/// Why the daemon is not known to be healthy. One line each.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// Nobody answers there.
    #[error("no answer from {address}: {error}; is the exporter running, and listening there?")]
    Unreachable {
        /// Where it was asked.
        address: String,
        /// What went wrong.
        error: io::Error,
    },
    /// It answers, and says that it is not well.
    #[error("{address} answered {status}: {body}")]
    Unhealthy {
        /// Where it was asked.
        address: String,
        /// Status code and reason.
        status: String,
        /// First line of the answer.
        body: String,
    },
    /// Where to ask cannot be told.
    #[error(transparent)]
    Name(#[from] UnknownHost),
    /// How to ask cannot be told.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// Something answers that is not the exporter.
    #[error("what listens on {address} does not speak HTTP; is --web.listen-address the exporter's?")]
    NotHttp {
        /// Where it was asked.
        address: String,
    },
}

/// Asks `/-/healthy` of the exporter that listens on `listen`, and speaks TLS to it if the web configuration
/// file asks for that. `Ok` is the line to print.
///
/// A daemon that wants to know who is asking before it answers is alive.
pub async fn healthcheck(
    listen: &ListenAddress,
    web_config: Option<&Path>,
) -> Result<String, HealthcheckError> {
    let tls = web_config.map_or(Ok(false), wants_tls)?;
    let targets = listen.local()?;
    let address = targets.first().map_or_else(|| listen.to_string(), ToString::to_string);
    let unreachable = |error| HealthcheckError::Unreachable { address: address.clone(), error };
    let asked = timeout(TIMEOUT, async {
        let stream = TcpStream::connect(targets.as_slice()).await?;
        ask(secure(stream, tls).await?).await
    });
    match asked.await {
        Ok(Ok(answer)) => judge(&answer, address),
        Ok(Err(error)) if wants_certificate(&error) => Ok(format!(
            "{address} is alive; it asks for a client certificate (client_auth_type), so its health is not known"
        )),
        Ok(Err(error)) => Err(unreachable(error)),
        Err(_) => {
            let error = format!("none within {} s", TIMEOUT.as_secs());
            Err(unreachable(io::Error::new(io::ErrorKind::TimedOut, error)))
        }
    }
}

/// Like [`healthcheck`], for whoever restarts what is not alive.
///
/// With a web configuration file that cannot be used the daemon serves nobody, and serves again by itself when the file is mended.
/// Started anew it would refuse to start. As long as the file is bad, a daemon that takes connections is therefore alive.
pub async fn liveness(listen: &ListenAddress, web_config: Option<&Path>) -> Result<String, HealthcheckError> {
    let Some(Err(bad)) = web_config.map(WebConfigFile::load) else {
        return healthcheck(listen, web_config).await;
    };
    let unreachable = |error| HealthcheckError::Unreachable { address: listen.to_string(), error };
    let targets = listen.local()?;
    match timeout(TIMEOUT, TcpStream::connect(targets.as_slice())).await {
        Ok(Ok(_)) => {
            Ok(format!("{listen} takes connections; its health is not known until this is mended: {bad}"))
        }
        Ok(Err(error)) => Err(unreachable(error)),
        Err(_) => Err(unreachable(io::ErrorKind::TimedOut.into())),
    }
}

async fn ask(mut stream: impl Stream) -> io::Result<Vec<u8>> {
    // If writing fails, reading says why: a refused handshake ends in an alert.
    let _ = stream.write_all(REQUEST).await;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer).await {
        // A connection that is reset after the answer has been answered.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn judge(answer: &[u8], address: String) -> Result<String, HealthcheckError> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut status_line = head.lines().next().unwrap_or_default().splitn(2, ' ');
    let status = match (status_line.next(), status_line.next()) {
        (Some(version), Some(status)) if version.starts_with("HTTP/") => status.trim().to_owned(),
        _ => return Err(HealthcheckError::NotHttp { address }),
    };
    match status.split(' ').next() {
        Some("200") => Ok(format!("{address} is healthy")),
        Some("401") => Ok(format!(
            "{address} is alive; it asks for a password (basic_auth_users), so its health is not known"
        )),
        _ => {
            let body = body.lines().next().unwrap_or_default().trim().to_owned();
            Err(HealthcheckError::Unhealthy { address, status, body })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let judge = |answer: &str| judge(answer.as_bytes(), "a:1".to_owned()).map_err(|e| e.to_string());
        assert_eq!(judge("HTTP/1.1 200 OK\r\nx: y\r\n\r\nhealthy\n"), Ok("a:1 is healthy".to_owned()));
        assert!(judge("HTTP/1.1 401 Unauthorized\r\n\r\n").unwrap().contains("alive"));
        let unhealthy = judge("HTTP/1.1 503 Service Unavailable\r\n\r\nunhealthy: no tick for 90 s\n");
        assert_eq!(
            unhealthy.unwrap_err(),
            "a:1 answered 503 Service Unavailable: unhealthy: no tick for 90 s"
        );
        for other in ["", "SSH-2.0-OpenSSH_9.9\r\n", "\u{15}\u{3}\u{3}"] {
            assert!(judge(other).unwrap_err().contains("does not speak HTTP"), "{other:?}");
        }
    }
}
