//! Which client certificates are taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
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

/// A client authentication policy: whether a certificate must be shown, who must have signed it, and for whom
/// it must be.
#[derive(Debug)]
pub(super) struct ClientPolicy {
    demand: Demand,
    /// `None`: any certificate is taken, if the client can prove that it has the key.
    issuer: Option<Arc<dyn ClientCertVerifier>>,
    allowed_sans: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientPolicy {
    pub(super) fn new(
        demand: Demand,
        roots: Option<RootCertStore>,
        allowed_sans: Option<Vec<String>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let issuer = roots
            .map(|roots| {
                let provider = Arc::clone(provider);
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()
            })
            .transpose()
            .map_err(|error| format!("client certificates cannot be verified ({error})"))?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { demand, issuer, allowed_sans, algorithms })
    }

    /// Whether a certificate that got through is known to be genuine.
    pub(super) fn verifies(&self) -> bool {
        self.issuer.is_some()
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
