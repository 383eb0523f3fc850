//! The flags of TLS.

use std::path::PathBuf;

use clap::Args;

/// The certificate that the server shows, if it speaks TLS.
#[derive(Args, Clone, Debug)]
pub(crate) struct TlsFlags {
    /// Certificate in PEM, followed by those that lead to its root; with it, only TLS is spoken
    #[arg(long = "tls-cert-file", global = true, env = "IMGSRV_TLS_CERT_FILE", value_name = "FILE")]
    cert_file: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long = "tls-key-file", global = true, env = "IMGSRV_TLS_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Where a certificate and its key are.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsFlags {
    /// The files that the flags name, if they name any; else the line that says which flag is missing.
    pub(crate) fn files(&self) -> Result<Option<TlsFiles>, String> {
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone() })),
            (Some(_), None) => Err("--tls-key-file: missing, and --tls-cert-file needs it".to_owned()),
            (None, Some(_)) => Err("--tls-cert-file: missing, and --tls-key-file needs it".to_owned()),
            (None, None) => Ok(None),
        }
    }
}
