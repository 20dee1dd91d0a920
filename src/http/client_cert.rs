//! Which client certificates are taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Whether a client may come without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// It may.
    Optional,
    /// It may not.
    Required,
}

/// Who must have signed a client certificate.
#[derive(Debug)]
pub(super) enum Issuers {
    /// Anybody.
    Any,
    /// One of those the file names.
    Named(RootCertStore),
    /// One of those this host trusts: what Go takes if the file names none.
    Host(RootCertStore),
}

/// Where distributions keep the authorities their hosts trust.
pub(super) const HOST_AUTHORITIES: [&str; 5] = [
    // Debian, Alpine, Arch
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // SUSE
    "/etc/ssl/ca-bundle.pem",
    // BusyBox and other small systems
    "/etc/ssl/cert.pem",
];

/// The first of `files` that holds a usable authority, and its authorities.
pub(super) fn host_authorities(files: &[&str]) -> Option<(PathBuf, RootCertStore)> {
    files.iter().find_map(|file| {
        let pem = std::fs::read(file).ok()?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        (usable > 0).then(|| (PathBuf::from(file), roots))
    })
}

/// A client authentication policy: whether a certificate must be shown, who must have signed it, and for whom
/// it must be.
#[derive(Debug)]
pub(super) struct ClientPolicy {
    demand: Demand,
    /// `None`: any certificate is taken, if the client can prove that it has the key.
    issuer: Option<Arc<dyn ClientCertVerifier>>,
    chosen: bool,
    allowed_sans: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientPolicy {
    pub(super) fn new(
        demand: Demand,
        issuers: Issuers,
        allowed_sans: Option<Vec<String>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let builder =
            |roots| WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let (builder, chosen) = match issuers {
            Issuers::Any => (None, false),
            Issuers::Named(roots) => (Some(builder(roots)), true),
            // Telling each client a hundred names would only bloat the handshake.
            Issuers::Host(roots) => (Some(builder(roots).clear_root_hint_subjects()), false),
        };
        let issuer = builder
            .map(ClientCertVerifierBuilder::build)
            .transpose()
            .map_err(|error| format!("client certificates cannot be verified ({error})"))?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { demand, issuer, chosen, allowed_sans, algorithms })
    }

    /// Whether who shows a certificate that gets through is known to be somebody in particular. The authorities
    /// that a host trusts sign for everybody.
    pub(super) fn identifies(&self) -> bool {
        self.chosen
    }

    /// Whether a certificate of [`Issuers::Host`] lets a client in.
    pub(super) fn takes_host_authorities(&self) -> bool {
        self.issuer.is_some() && !self.chosen
    }
}

impl ClientCertVerifier for ClientPolicy {
    fn client_auth_mandatory(&self) -> bool {
        // A list of who may come in would mean nothing if one could come in without a name.
        self.demand == Demand::Required || self.allowed_sans.is_some()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.issuer.as_ref().map_or(&[], |issuer| issuer.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(issuer) = &self.issuer {
            issuer.verify_client_cert(end_entity, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed_sans
            && !alternative_names(end_entity)?.iter().any(|name| allowed.contains(name))
        {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The subject alternative names that `client_allowed_sans` can name: DNS, e-mail, IP and URI.
fn alternative_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let malformed = || Error::from(CertificateError::BadEncoding);
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| malformed())?;
    let Some(extension) = certificate.subject_alternative_name().map_err(|_| malformed())? else {
        return Ok(Vec::new());
    };
    Ok(extension.value.general_names.iter().filter_map(name).collect())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
            let address =
                address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|b| IpAddr::V6(Ipv6Addr::from(b))));
            address.ok().map(|address| address.to_canonical().to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_of_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let (empty, bad) = (file("empty", ""), file("bad", damaged));
        let good = file("good", &format!("{damaged}{certificate}"));
        let (path, roots) = host_authorities(&["/nonexistent", &empty, &bad, &good]).unwrap();
        assert_eq!((path.to_str(), roots.len()), (Some(good.as_str()), 1));
        assert!(host_authorities(&["/nonexistent", &empty, &bad]).is_none());
    }
}
