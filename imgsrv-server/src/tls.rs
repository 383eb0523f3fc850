//! TLS on the connections of clients: a certificate and its key, read again when their files change.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are compared with what was read of them. Renewals replace files and Kubernetes moves links, so
/// it is contents that are compared; two small files are read sooner than any watch on them is understood.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The first byte of a connection that begins with TLS: a handshake record (RFC 8446 §5.1). No method begins with it.
const HANDSHAKE: u8 = 0x16;

const NO_CERTIFICATE: &str = "holds no certificate in PEM";
const NO_KEY: &str = "holds no private key in PEM that is not encrypted";

/// A certificate and its key for [`serve_tls`](crate::serve_tls), from two files that may change meanwhile.
///
/// A pair that is renewed serves new connections within seconds. One that cannot be used (its files are half written,
/// or belong to different pairs) is logged, and the last good one stays.
pub struct Tls {
    files: Files,
    loaded: Pair,
    config: watch::Sender<Arc<ServerConfig>>,
}

/// Why a certificate and its key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The file of the certificate cannot be read, or holds none that can be used.
    #[error("{0}")]
    Certificate(String),
    /// The file of the key cannot be read, holds none that can be used, or one of another certificate.
    #[error("{0}")]
    Key(String),
}

impl Tls {
    /// Reads a certificate, followed by those that lead to its root if there are any, and its private key; both PEM.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or holds nothing that can be used; a key that does not belong to the certificate.
    pub async fn load(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.into(), key: key.into() };
        let loaded = files.read().await?;
        let config = watch::Sender::new(files.config(&loaded)?);
        Ok(Self { files, loaded, config })
    }

    /// Makes handshakes with the pair of this moment.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.borrow()).into()
    }

    /// Takes up what becomes of the files, for as long as it is polled.
    pub(crate) async fn follow(&self) -> Infallible {
        let mut seen = Ok(self.loaded.clone());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let found = self.files.read().await;
            if found == seen {
                continue;
            }
            match found.as_ref().map_err(Clone::clone).and_then(|pair| self.files.config(pair)) {
                Ok(config) => {
                    self.config.send_replace(config);
                    tracing::info!("the certificate has changed and serves new connections");
                }
                Err(err) => tracing::warn!(error = %err, "the certificate cannot be renewed, the last good one stays"),
            }
            seen = found;
        }
    }
}

/// Whether a client begins with TLS. Its first byte is waited for, and stays to be read.
pub(crate) async fn is_spoken_on(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match socket.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE]),
    }
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    async fn read(&self) -> Result<Pair, TlsError> {
        let (certificate, key) = (tokio::fs::read(&self.certificate).await, tokio::fs::read(&self.key).await);
        Ok(Pair {
            certificate: certificate.map_err(|err| self.bad_certificate(err))?,
            key: key.map_err(|err| self.bad_key(err))?,
        })
    }

    /// HTTP/1.1 over TLS 1.2 or 1.3. A configuration of its own for each pair, so that no session outlives the
    /// certificate that it began with.
    fn config(&self, pair: &Pair) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.certificate)
            .collect::<Result<_, _>>()
            .map_err(|err| self.bad_certificate(said(&err, NO_CERTIFICATE)))?;
        if chain.is_empty() {
            return Err(self.bad_certificate(NO_CERTIFICATE));
        }
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|err| self.bad_key(said(&err, NO_KEY)))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|err| self.bad_certificate(err))?;
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|err| match err {
            rustls::Error::InconsistentKeys(_) => {
                self.bad_key(format_args!("does not belong to the certificate in {}", self.certificate.display()))
            }
            rustls::Error::InvalidCertificate(err) => self.bad_certificate(format_args!("not usable: {err}")),
            err => self.bad_key(format_args!("not usable: {err}")),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn bad_certificate(&self, reason: impl Display) -> TlsError {
        TlsError::Certificate(about(&self.certificate, reason))
    }

    fn bad_key(&self, reason: impl Display) -> TlsError {
        TlsError::Key(about(&self.key, reason))
    }
}

fn about(file: &Path, reason: impl Display) -> String {
    format!("{}: {reason}", file.display())
}

/// In words that do not repeat what the file holds.
fn said(err: &pem::Error, none: &'static str) -> &'static str {
    match err {
        pem::Error::NoItemsFound => none,
        _ => "not PEM",
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
    use tempfile::TempDir;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    /// A certificate for `localhost` and its key, in files.
    pub(crate) struct Written {
        folder: TempDir,
        pub(crate) signed: CertifiedKey<KeyPair>,
    }

    impl Written {
        pub(crate) fn new() -> Self {
            let signed = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let written = Self { folder: tempfile::tempdir().unwrap(), signed };
            written.write(&written.signed.cert.pem(), &written.signed.signing_key.serialize_pem());
            written
        }

        pub(crate) fn write(&self, certificate: &str, key: &str) {
            std::fs::write(self.certificate(), certificate).unwrap();
            std::fs::write(self.key(), key).unwrap();
        }

        pub(crate) fn certificate(&self) -> PathBuf {
            self.folder.path().join("cert.pem")
        }

        pub(crate) fn key(&self) -> PathBuf {
            self.folder.path().join("key.pem")
        }

        pub(crate) async fn load(&self) -> Result<Tls, TlsError> {
            Tls::load(self.certificate(), self.key()).await
        }

        /// Connects clients that trust this certificate.
        pub(crate) fn connector(&self) -> TlsConnector {
            let mut roots = RootCertStore::empty();
            roots.add(self.signed.cert.der().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let mut config = config.with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Arc::new(config).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::KeyPair;

    use super::testing::Written;
    use super::*;

    const GARBAGE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let written = Written::new();
        let (certificate, key) = (written.signed.cert.pem(), written.signed.signing_key.serialize_pem());
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let another = KeyPair::generate().unwrap().serialize_pem();
        for (certificate, key, line) in [
            ("", key.as_str(), "cert.pem: holds no certificate in PEM"),
            (key.as_str(), key.as_str(), "cert.pem: holds no certificate in PEM"),
            (GARBAGE, key.as_str(), "cert.pem: not usable: "),
            ("-----BEGIN CERTIFICATE-----\n", key.as_str(), "cert.pem: not PEM"),
            (certificate.as_str(), "", "key.pem: holds no private key in PEM"),
            (certificate.as_str(), encrypted.as_str(), "key.pem: holds no private key in PEM that is not encrypted"),
            (certificate.as_str(), another.as_str(), "key.pem: does not belong to the certificate in "),
        ] {
            written.write(certificate, key);
            let err = written.load().await.err().unwrap();
            assert!(err.to_string().contains(line), "{err}");
            assert_eq!(matches!(err, TlsError::Certificate(_)), line.starts_with("cert"), "{err}");
        }
        std::fs::remove_file(written.key()).unwrap();
        assert!(matches!(written.load().await, Err(TlsError::Key(_))));
        std::fs::remove_file(written.certificate()).unwrap();
        assert!(matches!(written.load().await, Err(TlsError::Certificate(_))));
    }

    #[tokio::test]
    async fn one_file_may_hold_both() {
        let written = Written::new();
        let both = written.signed.signing_key.serialize_pem() + &written.signed.cert.pem();
        written.write(&both, &both);
        assert!(written.load().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_pair_that_can_be_used_takes_the_place_of_another() {
        let written = Written::new();
        let tls = written.load().await.unwrap();
        let first = Arc::clone(&tls.config.borrow());
        let now = || Arc::clone(&tls.config.borrow());
        let look = || tokio::time::timeout(LOOK_EVERY + Duration::from_secs(1), tls.follow());
        assert!(look().await.is_err());
        assert!(Arc::ptr_eq(&first, &now()), "nothing has changed");

        let next = Written::new();
        std::fs::copy(next.certificate(), written.certificate()).unwrap();
        assert!(look().await.is_err());
        assert!(Arc::ptr_eq(&first, &now()), "the key is still to come");
        std::fs::copy(next.key(), written.key()).unwrap();
        assert!(look().await.is_err());
        assert!(!Arc::ptr_eq(&first, &now()));
    }
}
