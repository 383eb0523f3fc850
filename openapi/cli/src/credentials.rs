//! What `imgsrv login` keeps: which server, and a token for each.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The file `credentials.json`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Credentials {
    /// The server of the last login.
    pub(crate) server: Option<String>,
    #[serde(default)]
    tokens: BTreeMap<String, String>,
}

impl Credentials {
    /// What is kept; nothing, where nobody has logged in.
    pub(crate) fn load() -> Result<Self, Failure> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let text = match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(|err| Failure::file(&path, &err))?,
        };
        serde_json::from_slice(&text)
            .map_err(|err| Failure::other(format!("{}: not written by imgsrv login: {err}", path.display())))
    }

    pub(crate) fn token(&self, server: &str) -> Option<&str> {
        self.tokens.get(name(server)).map(String::as_str)
    }

    /// Whether a token can be kept.
    pub(crate) fn check() -> Result<(), Failure> {
        Self::load()?;
        folder().map(drop)
    }

    /// Keeps a token, and makes its server the one that is meant when none is named.
    pub(crate) fn keep(server: &str, token: &str) -> Result<PathBuf, Failure> {
        let mut kept = Self::load()?;
        kept.server = Some(name(server).to_owned());
        kept.tokens.insert(name(server).to_owned(), token.to_owned());
        let path = folder()?;
        kept.store(&path).map_err(|err| Failure::file(&path, &err))?;
        Ok(path)
    }

    fn store(&self, path: &PathBuf) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Beside it first: a crash leaves the old file or the new one.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&new, path)
    }
}

fn folder() -> Result<PathBuf, Failure> {
    path().ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME says where to keep the token"))
}

fn name(server: &str) -> &str {
    server.trim_end_matches('/')
}

fn path() -> Option<PathBuf> {
    let set = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("imgsrv/credentials.json"))
}
