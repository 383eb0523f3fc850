//! Folders that outlive a power failure.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Schema;
use crate::cli::Failure;

/// The absolute path of a folder, made when it is missing and may be: for us alone, because SQLite's files and the
/// images that are not published yet are nobody else's business.
pub(super) fn open_folder(path: &Path, schema: Schema) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path).map_err(|err| failed(path, &err))?;
    if schema == Schema::Migrate {
        create(&path)?;
    }
    Ok(path)
}

/// Makes the names in a folder durable: a file that was synced itself is lost when its name is.
pub(super) fn sync_folder(path: &Path) -> Result<(), Failure> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|err| failed(path, &err))
}

fn create(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        // Another process was faster.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        result => result.map_err(|err| failed(path, &err))?,
    }
    path.parent().map_or(Ok(()), sync_folder)
}

fn failed(path: &Path, err: &io::Error) -> Failure {
    Failure::Config(format!("--data-dir: {} is not usable: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_what_is_missing_for_us_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        open_folder(&path, Schema::Migrate).unwrap();
        for made in [root.path().join("a"), path.clone()] {
            assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        open_folder(&path, Schema::Migrate).unwrap();
    }

    #[test]
    fn makes_nothing_unless_it_may() {
        let root = tempfile::tempdir().unwrap();
        open_folder(&root.path().join("a"), Schema::Require).unwrap();
        assert!(!root.path().join("a").exists());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        std::fs::write(&path, "").unwrap();
        let failure = open_folder(&path, Schema::Migrate).unwrap_err();
        assert!(failure.to_string().contains(path.to_str().unwrap()), "{failure}");
    }
}
