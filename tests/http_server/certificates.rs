//! Certificates made for one test, and clients that use them.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// The versions a client may speak.
pub static OLD: [&SupportedProtocolVersion; 1] = [&TLS12];
pub static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
pub static ANY: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// Somebody who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn server(&self) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    pub fn client(&self, names: Vec<SanType>) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = names;
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A directory with an authority, a server's pair, and room for a configuration.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub authority: Authority,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap(), authority: Authority::new() };
        let pair = place.authority.server();
        place.write("cert.pem", &pair.cert);
        place.write("key.pem", &pair.key);
        place.write("ca.pem", &place.authority.pem());
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// A configuration with TLS and these further lines in its section.
    pub fn tls(&self, lines: &[&str]) -> PathBuf {
        let more = indent(&lines.join("\n"), 2);
        self.write(
            "web.yml",
            &format!("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n{more}"),
        )
    }

    pub fn client(&self) -> Client<'_> {
        Client { authority: &self.authority, pair: None, versions: &ANY, alpn: &[] }
    }
}

/// How to connect.
#[derive(Clone)]
pub struct Client<'a> {
    pub authority: &'a Authority,
    pub pair: Option<Pair>,
    pub versions: &'static [&'static SupportedProtocolVersion],
    pub alpn: &'static [&'static [u8]],
}

impl Client<'_> {
    pub async fn connect(&self, address: std::net::SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.pair {
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
                // Not looked at: a thief has a certificate and another key.
                let pair = CertifiedKey::new(vec![cert], any_supported_type(&key).unwrap());
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Whether a request gets an answer: the last part of a handshake may fail after the client's side of it.
    pub async fn is_served(&self, address: std::net::SocketAddr) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(mut stream) = self.connect(address).await else { return false };
        let _ = stream.write_all(crate::support::get("/-/ready", "").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        crate::support::Answer::parse(&answer).status == 200
    }
}

/// The lines of `text`, indented.
pub fn indent(text: &str, by: usize) -> String {
    let (margin, mut indented) = (" ".repeat(by), String::new());
    for line in text.lines() {
        indented.extend([margin.as_str(), line, "\n"]);
    }
    indented
}

/// Puts a new file in the place of an old one, in one step.
pub fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}
