//! The flags of a store that speaks S3.

use std::fmt;

use clap::{ArgAction, Args, ValueEnum};

use super::boolean;
use super::value::Endpoint;

/// Where the objects are, unless they are files. One of these flags asks for all that it takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct S3Flags {
    /// S3 store, as host:port; without it, files in the data folder
    #[arg(long = "s3-endpoint", global = true, env = "IMGSRV_S3_ENDPOINT", value_name = "HOST[:PORT]")]
    endpoint: Option<Endpoint>,

    /// Bucket for the objects; it has to exist
    #[arg(long = "s3-bucket", global = true, env = "IMGSRV_S3_BUCKET", value_name = "NAME")]
    bucket: Option<String>,

    /// Id of the access key
    #[arg(long = "s3-access-key-id", global = true, env = "IMGSRV_S3_ACCESS_KEY_ID", value_name = "ID")]
    access_key_id: Option<String>,

    /// Secret of the access key
    #[arg(
        long = "s3-secret-access-key",
        global = true,
        env = "IMGSRV_S3_SECRET_ACCESS_KEY",
        value_name = "SECRET",
        hide_env_values = true
    )]
    secret_access_key: Option<Secret>,

    /// Token that goes with a temporary access key
    #[arg(
        long = "s3-session-token",
        global = true,
        env = "IMGSRV_S3_SESSION_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    session_token: Option<Secret>,

    /// Region that requests are signed for [default: us-east-1]
    #[arg(long = "s3-region", global = true, env = "IMGSRV_S3_REGION", value_name = "REGION")]
    region: Option<String>,

    /// Whether to speak TLS with the store [default: true]
    #[arg(long = "s3-use-tls", global = true, env = "IMGSRV_S3_USE_TLS", value_name = "BOOL", value_parser = boolean, action = ArgAction::Set)]
    use_tls: Option<bool>,

    /// Whether the bucket stands in the path of requests, and not in the name of the host [default: true]
    #[arg(long = "s3-path-style", global = true, env = "IMGSRV_S3_PATH_STYLE", value_name = "BOOL", value_parser = boolean, action = ArgAction::Set)]
    path_style: Option<bool>,

    /// Checksum that goes with what is written [default: auto]
    #[arg(long = "s3-checksum", global = true, env = "IMGSRV_S3_CHECKSUM")]
    checksum: Option<Checksum>,
}

/// A store that speaks S3.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "s3"), expect(dead_code, reason = "only to say that it is of no use"))]
pub(crate) struct S3 {
    /// As a URL.
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    pub(crate) session_token: Option<Secret>,
    pub(crate) region: String,
    pub(crate) path_style: bool,
    pub(crate) checksum: Checksum,
}

impl S3Flags {
    /// The store that the flags name, if they name one; else the line that says which flag is missing.
    pub(crate) fn store(&self) -> Result<Option<S3>, String> {
        let given = [
            ("endpoint", self.endpoint.is_some()),
            ("bucket", self.bucket.is_some()),
            ("access-key-id", self.access_key_id.is_some()),
            ("secret-access-key", self.secret_access_key.is_some()),
            ("session-token", self.session_token.is_some()),
            ("region", self.region.is_some()),
            ("use-tls", self.use_tls.is_some()),
            ("path-style", self.path_style.is_some()),
            ("checksum", self.checksum.is_some()),
        ];
        let Some((first, _)) = given.iter().find(|(_, given)| *given) else { return Ok(None) };
        let missing = |flag: &str| format!("--s3-{flag}: missing, and --s3-{first} needs it");
        Ok(Some(S3 {
            endpoint: self.endpoint.as_ref().ok_or_else(|| missing("endpoint"))?.url(self.use_tls.unwrap_or(true)),
            bucket: self.bucket.clone().ok_or_else(|| missing("bucket"))?,
            access_key_id: self.access_key_id.clone().ok_or_else(|| missing("access-key-id"))?,
            secret_access_key: self.secret_access_key.clone().ok_or_else(|| missing("secret-access-key"))?,
            session_token: self.session_token.clone(),
            region: self.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
            path_style: self.path_style.unwrap_or(true),
            checksum: self.checksum.unwrap_or(Checksum::Auto),
        }))
    }
}

/// Which checksum goes with what is written, for the store to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Checksum {
    /// CRC32C where the store takes it, which is found out at the start
    Auto,
    /// None
    None,
    /// CRC32C
    Crc32c,
}

/// A text that nothing prints.
#[derive(Clone)]
pub(crate) struct Secret(
    #[cfg_attr(not(feature = "s3"), expect(dead_code, reason = "only to say that it is of no use"))] String,
);

impl Secret {
    #[cfg(feature = "s3")]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "Secret(…)");
    }
}
