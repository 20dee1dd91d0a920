//! `tls_server_config` of the web configuration file, as rustls wants it.

use super::client_cert::{ClientPolicy, Demand, HOST_AUTHORITIES, Issuers, host_authorities};
use super::web_config::{Critic, Text, TlsSection, WebConfigError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{
    self, InconsistentKeys, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};

/// How to speak TLS.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// Whether a certificate that a client shows has been verified to be of an authority chosen for that.
    pub(super) identifies_clients: bool,
    /// Whether one of any authority that this host trusts lets a client in.
    pub(super) takes_host_authorities: bool,
}

/// The TLS versions of Go's names that rustls has.
const VERSIONS: [(&str, &SupportedProtocolVersion); 2] =
    [("TLS12", &rustls::version::TLS12), ("TLS13", &rustls::version::TLS13)];

/// The curves of Go's names that the provider has.
const CURVES: [(&str, &dyn SupportedKxGroup); 3] = [
    ("X25519", ring::kx_group::X25519),
    ("CurveP256", ring::kx_group::SECP256R1),
    ("CurveP384", ring::kx_group::SECP384R1),
];

/// Builds it. Files are looked for relative to `directory` and added to `named` before they are read.
pub(super) fn build(
    section: &TlsSection,
    http2: bool,
    directory: &Path,
    critic: Critic<'_>,
    named: &mut Vec<PathBuf>,
) -> Result<Tls, WebConfigError> {
    let mut files = Files { directory, critic, named };
    let Some(certificate) = files.pem("cert", &section.cert, &section.cert_file)? else {
        return Err(files.missing("cert"));
    };
    let Some(key) = files.pem("key", &section.key, &section.key_file)? else {
        return Err(files.missing("key"));
    };
    let authorities = files.pem("client_ca", &section.client_ca, &section.client_ca_file)?;
    let (chain, private_key) = (certificate.chain(critic)?, key.private_key(critic)?);

    let versions = versions(section, critic)?;
    let provider = Arc::new(provider(section, &versions, critic)?);
    let policy = client_policy(section, authorities, &provider, critic, named)?;
    let identifies_clients = policy.as_ref().is_some_and(ClientPolicy::identifies);
    let takes_host_authorities = policy.as_ref().is_some_and(ClientPolicy::takes_host_authorities);
    let fault = |error: &rustls::Error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.fault(critic, "this key does not belong to the certificate; give the pair".to_owned())
        }
        other => key.fault(critic, format!("certificate and key cannot be used ({other}); give others")),
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| fault(&error))?;
    let builder = match policy {
        Some(policy) => builder.with_client_cert_verifier(Arc::new(policy) as Arc<dyn ClientCertVerifier>),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, private_key).map_err(|error| fault(&error))?;
    config.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Tls { config: Arc::new(config), identifies_clients, takes_host_authorities })
}

/// Reads what is inline or in a file.
struct Files<'a> {
    directory: &'a Path,
    critic: Critic<'a>,
    named: &'a mut Vec<PathBuf>,
}

impl Files<'_> {
    fn pem(&mut self, key: &str, inline: &Text, file: &Text) -> Result<Option<Pem>, WebConfigError> {
        if let Some(path) = file.get() {
            let key = format!("tls_server_config.{key}_file");
            let path = self.directory.join(&path.value);
            self.named.push(path.clone());
            let bytes = std::fs::read(&path).map_err(|error| {
                let problem = format!(
                    "{} cannot be read ({error}); give a file that exists and that this user may read, \
                     relative to the directory of this one",
                    path.display()
                );
                self.critic.fault(file.line(), &key, problem)
            })?;
            return Ok(Some(Pem { bytes, key, line: file.line() }));
        }
        Ok(inline.get().map(|text| Pem {
            bytes: text.value.clone().into_bytes(),
            key: format!("tls_server_config.{key}"),
            line: inline.line(),
        }))
    }

    fn missing(&self, key: &str) -> WebConfigError {
        let problem = format!("TLS needs {key} or {key}_file, and there is neither; add one");
        self.critic.fault(None, "tls_server_config", problem)
    }
}

/// PEM text and where it comes from.
struct Pem {
    bytes: Vec<u8>,
    key: String,
    line: Option<u64>,
}

impl Pem {
    fn fault(&self, critic: Critic<'_>, problem: String) -> WebConfigError {
        critic.fault(self.line, &self.key, problem)
    }

    fn chain(&self, critic: Critic<'_>) -> Result<Vec<CertificateDer<'static>>, WebConfigError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let chain = chain.map_err(|_| {
            let problem = "the PEM in it is damaged; each BEGIN needs its END, and base64 between them";
            self.fault(critic, problem.to_owned())
        })?;
        if chain.is_empty() {
            let problem = "there is no certificate in it; give PEM that has a BEGIN CERTIFICATE line";
            return Err(self.fault(critic, problem.to_owned()));
        }
        if let Some(at) = chain.iter().position(|der| ParsedCertificate::try_from(der).is_err()) {
            let problem = format!("certificate {} in it cannot be read; make it anew", at + 1);
            return Err(self.fault(critic, problem));
        }
        Ok(chain)
    }

    fn private_key(&self, critic: Critic<'_>) -> Result<PrivateKeyDer<'static>, WebConfigError> {
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
        if self.bytes.windows(encrypted.len()).any(|window| window == encrypted) {
            let problem =
                "the key is encrypted; give it without a passphrase (openssl pkey -in KEY -out NEW)";
            return Err(self.fault(critic, problem.to_owned()));
        }
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| {
            let problem = "there is no private key in it; give PEM that has a BEGIN PRIVATE KEY line";
            self.fault(critic, problem.to_owned())
        })
    }
}

fn versions(
    section: &TlsSection,
    critic: Critic<'_>,
) -> Result<Vec<&'static SupportedProtocolVersion>, WebConfigError> {
    let position = |key: &str, text: &Text, default: usize| {
        let Some(name) = text.get() else { return Ok(default) };
        let name = name.value.as_str();
        VERSIONS.iter().position(|(known, _)| *known == name).ok_or_else(|| {
            let problem = match name {
                "TLS10" | "TLS11" => format!("{name} is broken and not offered; use TLS12 or TLS13"),
                _ => format!("{name:?} is no TLS version; use TLS12 or TLS13"),
            };
            critic.fault(text.line(), format!("tls_server_config.{key}"), problem)
        })
    };
    let min = position("min_version", &section.min_version, 0)?;
    let max = position("max_version", &section.max_version, VERSIONS.len() - 1)?;
    if min > max {
        let problem = "min_version is above max_version, so no version is left; swap them";
        return Err(critic.fault(section.min_version.line(), "tls_server_config.min_version", problem));
    }
    Ok(VERSIONS[min..=max].iter().map(|(_, version)| *version).collect())
}

fn provider(
    section: &TlsSection,
    versions: &[&'static SupportedProtocolVersion],
    critic: Critic<'_>,
) -> Result<CryptoProvider, WebConfigError> {
    let mut provider = ring::default_provider();
    if let Some(names) = section.cipher_suites.as_ref().filter(|names| !names.is_empty()) {
        // As in Go, the list is about TLS 1.2: the suites of 1.3 are all sound and all there.
        let (mut chosen, known): (Vec<_>, Vec<_>) =
            provider.cipher_suites.iter().copied().partition(|suite| suite.tls13().is_some());
        for name in names {
            if chosen.iter().any(|suite| go_name(*suite) == name.value) {
                continue;
            }
            let Some(suite) = known.iter().find(|suite| go_name(**suite) == name.value) else {
                let all: Vec<_> = provider.cipher_suites.iter().copied().map(go_name).collect();
                let problem = format!(
                    "{:?} is not offered here (suites with CBC or without ECDHE never are); choose from {}",
                    name.value,
                    all.join(", ")
                );
                let line = Some(name.referenced.line());
                return Err(critic.fault(line, "tls_server_config.cipher_suites", problem));
            };
            chosen.push(*suite);
        }
        provider.cipher_suites = chosen;
        let usable = |version: &&SupportedProtocolVersion| {
            provider.cipher_suites.iter().any(|suite| suite.version() == *version)
        };
        if !versions.iter().any(usable) {
            let problem = "no suite of TLS 1.2 is named, and max_version leaves out TLS 1.3; name one";
            let line = Some(names[0].referenced.line());
            return Err(critic.fault(line, "tls_server_config.cipher_suites", problem));
        }
    }
    if let Some(names) = section.curve_preferences.as_ref().filter(|names| !names.is_empty()) {
        provider.kx_groups.clear();
        for name in names {
            let Some((_, group)) = CURVES.iter().find(|(known, _)| *known == name.value) else {
                let known: Vec<_> = CURVES.iter().map(|(known, _)| *known).collect();
                let problem =
                    format!("{:?} is not offered here; choose from {}", name.value, known.join(", "));
                let line = Some(name.referenced.line());
                return Err(critic.fault(line, "tls_server_config.curve_preferences", problem));
            };
            provider.kx_groups.push(*group);
        }
    }
    Ok(provider)
}

/// rustls marks the suites of TLS 1.3 in their names, Go does not.
fn go_name(suite: SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

fn client_policy(
    section: &TlsSection,
    authorities: Option<Pem>,
    provider: &Arc<CryptoProvider>,
    critic: Critic<'_>,
    named: &mut Vec<PathBuf>,
) -> Result<Option<ClientPolicy>, WebConfigError> {
    let key = "tls_server_config.client_auth_type";
    let kind = section.client_auth_type.get().map_or("NoClientCert", |kind| kind.value.as_str());
    let (demand, verifies) = match kind {
        "NoClientCert" => (None, false),
        "RequestClientCert" => (Some(Demand::Optional), false),
        "RequireAnyClientCert" | "RequireClientCert" => (Some(Demand::Required), false),
        "VerifyClientCertIfGiven" => (Some(Demand::Optional), true),
        "RequireAndVerifyClientCert" => (Some(Demand::Required), true),
        other => {
            let problem = format!(
                "{other:?} is no policy; use NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            );
            return Err(critic.fault(section.client_auth_type.line(), key, problem));
        }
    };
    let sans = section.client_allowed_sans.as_ref();
    let Some(demand) = demand else {
        if let Some(pem) = authorities {
            let problem = "client_auth_type asks no client for a certificate, so this would check nothing; \
                           set it to RequireAndVerifyClientCert";
            return Err(pem.fault(critic, problem.to_owned()));
        }
        if let Some(sans) = sans {
            let problem = "client_auth_type asks no client for a certificate, so this would check nothing; \
                           set it to RequireAndVerifyClientCert";
            let line = Some(sans.referenced.line());
            return Err(critic.fault(line, "tls_server_config.client_allowed_sans", problem));
        }
        return Ok(None);
    };
    if let Some(sans) = sans.filter(|sans| sans.value.is_empty()) {
        let problem = "an empty list would refuse every client; name those to let in, or remove the key";
        let line = Some(sans.referenced.line());
        return Err(critic.fault(line, "tls_server_config.client_allowed_sans", problem));
    }
    let issuers = match (verifies, authorities) {
        (true, None) => {
            let Some((path, roots)) = host_authorities(&HOST_AUTHORITIES) else {
                let problem = format!("{kind} needs client_ca or client_ca_file to verify with; add one");
                return Err(critic.fault(section.client_auth_type.line(), key, problem));
            };
            named.push(path);
            Issuers::Host(roots)
        }
        (true, Some(pem)) => {
            let mut roots = RootCertStore::empty();
            for certificate in pem.chain(critic)? {
                roots.add(certificate).map_err(|error| {
                    pem.fault(critic, format!("a certificate in it cannot be used ({error}); remove it"))
                })?;
            }
            Issuers::Named(roots)
        }
        // Not needed, but a file that is no certificate is a mistake all the same.
        (false, Some(pem)) => pem.chain(critic).map(|_| Issuers::Any)?,
        (false, None) => Issuers::Any,
    };
    let allowed = sans.map(|sans| sans.value.clone());
    ClientPolicy::new(demand, issuers, allowed, provider)
        .map(Some)
        .map_err(|error| critic.fault(section.client_auth_type.line(), key, error))
}
