//! Asking the daemon on this host, as its own commands do.

use super::web_config::{WebConfigError, wants_tls};
use crate::config::{ListenAddress, UnknownHost};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

/// From connecting to the head of the answer, on this host: whoever takes longer has other troubles.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// From there to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest head taken: ours has half a dozen headers, and those of the web configuration file.
const HEAD_MAX: usize = 16 << 10;

/// Largest body taken: a thousand processes with ten connections each and an hour of seconds fit twice.
const BODY_MAX: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("nobody listens on {0}")]
    Nobody(String),
    /// Where to ask cannot be told.
    #[error(transparent)]
    Name(#[from] UnknownHost),
    /// How to ask cannot be told.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// Somebody listens, and has not said what was asked. One line.
    #[error("{address} {why}")]
    Refused {
        /// Where it was asked.
        address: String,
        /// What it did instead.
        why: String,
    },
}

/// GETs `path` of the exporter that listens on `listen`, over TLS if the web configuration file asks for that: the body of
/// its 200. Takes some seconds at most.
pub async fn ask_daemon(
    listen: &ListenAddress,
    web_config: Option<&Path>,
    path: &str,
) -> Result<Vec<u8>, AskError> {
    let tls = web_config.map_or(Ok(false), wants_tls)?;
    let targets = listen.local()?;
    let address = targets.first().map_or_else(|| listen.to_string(), ToString::to_string);
    let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, TcpStream::connect(targets.as_slice())).await else {
        return Err(AskError::Nobody(address));
    };
    let peer = stream.peer_addr().map_or(address, |peer: SocketAddr| peer.to_string());
    let refused = |why: String| AskError::Refused { address: peer.clone(), why };
    let slow = |_| refused("does not answer in time".to_owned());
    let head = timeout(HEAD_TIMEOUT, async {
        let mut stream = secure(stream, tls).await?;
        let (head, body) = get(&mut stream, path).await?;
        Ok((stream, head, body))
    });
    let (mut stream, head, begun) = match head.await.map_err(slow)? {
        Ok(answered) => answered,
        Err(error) if wants_certificate(&error) => {
            return Err(refused("asks for a client certificate (client_auth_type)".to_owned()));
        }
        Err(error) => return Err(refused(format!("gives no answer: {error}"))),
    };
    match head.status() {
        Some("200") => {}
        Some("401") => return Err(refused("asks for a password (basic_auth_users)".to_owned())),
        Some(status) => return Err(refused(format!("answers {path} with {status}"))),
        None => return Err(refused("does not speak HTTP".to_owned())),
    }
    let body = timeout(BODY_TIMEOUT, rest(&mut stream, begun, head.length())).await.map_err(slow)?;
    body.map_err(|error| refused(format!("has not answered to the end: {error}")))
}

/// Status line and headers.
struct Head(String);

impl Head {
    /// The status code; `None` of what is not HTTP.
    fn status(&self) -> Option<&str> {
        let mut words = self.0.lines().next()?.split(' ');
        words.next().filter(|version| version.starts_with("HTTP/1."))?;
        words.next()
    }

    fn length(&self) -> Option<usize> {
        let headers = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut lengths = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        lengths.next()?.1.trim().parse().ok()
    }
}

/// Sends the request and reads up to the end of the answer's head: that, and what has come of its body.
async fn get(stream: &mut impl Stream, path: &str) -> io::Result<(Head, Vec<u8>)> {
    // HTTP/1.0 knows no chunks: the body comes as it is.
    let agent = env!("CARGO_PKG_NAME");
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: {agent}\r\n\r\n");
    // If writing fails, reading says why: a refused handshake ends in an alert.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    loop {
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        // Whoever speaks something else need not be waited for.
        let is_http = answer.iter().zip(b"HTTP/").all(|(one, other)| one == other);
        if end.is_some() || !is_http || answer.len() > HEAD_MAX {
            let body = answer.split_off(end.map_or(answer.len(), |end| end + 4));
            return Ok((Head(String::from_utf8_lossy(&answer).into_owned()), body));
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Ok((Head(String::from_utf8_lossy(&answer).into_owned()), Vec::new()));
        }
    }
}

/// The body that has begun so, to its end.
async fn rest(stream: &mut impl Stream, mut body: Vec<u8>, length: Option<usize>) -> io::Result<Vec<u8>> {
    // One byte more than may come tells that too much has.
    let limit = length.unwrap_or(BODY_MAX + 1).min(BODY_MAX + 1).saturating_sub(body.len());
    stream.take(limit as u64).read_to_end(&mut body).await?;
    if body.len() > BODY_MAX {
        return Err(io::Error::other(format!("more than {} MiB", BODY_MAX >> 20)));
    }
    if length.is_some_and(|length| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// Whatever carries HTTP.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// The connection, inside TLS if `tls`. The certificate is not verified: it names the host as scrapers know it, which is
/// not how it is asked here, and nothing secret is sent.
pub(super) async fn secure(stream: TcpStream, tls: bool) -> io::Result<Box<dyn Stream>> {
    Ok(if tls { Box::new(connect_tls(stream).await?) } else { Box::new(stream) })
}

async fn connect_tls(stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let anybody = Anybody(provider.signature_verification_algorithms.supported_schemes());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anybody))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Whether a handshake failed because we have no certificate to show.
pub(super) fn wants_certificate(error: &io::Error) -> bool {
    use rustls::AlertDescription::{BadCertificate, CertificateRequired, HandshakeFailure};
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(
        error,
        Some(rustls::Error::AlertReceived(CertificateRequired | BadCertificate | HandshakeFailure))
    )
}

/// Takes any certificate, with these signature schemes.
#[derive(Debug)]
struct Anybody(Vec<SignatureScheme>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
