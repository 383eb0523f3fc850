//! Certificates as an operator has them: signed by an authority that clients are told to trust, renewed now and then.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::Folder;

/// An authority of a test's own, and the files that it keeps in a folder.
pub(crate) struct Authority {
    folder: Folder,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(folder: &Folder) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let authority = Self { folder: folder.clone(), issuer };
        std::fs::write(authority.ca_file(), authority.issuer.pem()).expect("written");
        authority
    }

    /// What clients trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What a server shows. As Kubernetes has it, its folder is a link that moves to the next pair.
    pub(crate) fn cert_file(&self) -> PathBuf {
        self.link().join("tls.crt")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.link().join("tls.key")
    }

    /// Puts a new certificate for this machine and its key into the place of what is there.
    pub(crate) fn renew(&self) {
        let (certificate, key) = self.issue();
        let pair = tempfile::tempdir_in(self.folder.path()).expect("a folder").keep();
        std::fs::write(pair.join("tls.crt"), certificate).expect("written");
        std::fs::write(pair.join("tls.key"), key).expect("written");
        let link = pair.with_extension("link");
        std::os::unix::fs::symlink(&pair, &link).expect("a link");
        std::fs::rename(link, self.link()).expect("moved");
    }

    /// A certificate for this machine and its key, in PEM.
    pub(crate) fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// The flags of a server that shows this certificate.
    pub(crate) fn flags(&self) -> [String; 2] {
        let (cert, key) = (self.cert_file(), self.key_file());
        [format!("--tls-cert-file={}", cert.display()), format!("--tls-key-file={}", key.display())]
    }

    fn link(&self) -> PathBuf {
        self.folder.path().join("certificate")
    }
}
