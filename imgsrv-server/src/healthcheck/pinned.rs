//! TLS with one server: the one that holds the key of a known certificate, whatever its name and whoever signed it.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::cli::Failure;

/// What connects to the server whose certificate is the first in this file.
pub(super) async fn connector(file: &Path) -> Result<TlsConnector, Failure> {
    let unusable = |reason: &dyn Display| Failure::Config(format!("--tls-cert-file: {}: {reason}", file.display()));
    let text = tokio::fs::read(file).await.map_err(|err| unusable(&err))?;
    let certificate = CertificateDer::from_pem_slice(&text).map_err(|_| unusable(&"holds no certificate in PEM"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|err| unusable(&err))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }))
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// Speaks TLS on a connection.
pub(super) async fn connect(connector: &TlsConnector, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(socket.peer_addr()?.ip());
    connector.connect(name, socket).await
}

/// The name in a certificate is one that clients use, and no address that this machine has for itself. So what is asked
/// for is the certificate, and that its key signs the handshake.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("the server has another certificate than the one configured".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
