//! Images as builders make them, small.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::site::run;
use crate::server::bytes;

/// The first process of a container: says what it is given, or waits to be ended.
const INIT: &str = r#"
    #include <stdio.h>
    #include <unistd.h>
    int main(int count, char **words) {
        if (count > 1) return puts(words[1]) < 0;
        for (;;) pause();
    }
"#;

static INIT_PROGRAM: LazyLock<Vec<u8>> =
    LazyLock::new(|| make(&[("init.c", INIT.as_bytes())], "cc -static -o init init.c", "init"));

/// What becomes an artifact.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) format: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) root: Vec<u8>,
    /// What is attached as `incus.tar.xz`.
    pub(crate) metadata: Option<Vec<u8>>,
}

impl Image {
    /// A disk of this many MiB that look like nothing.
    pub(crate) fn disk(name: &str, mib: usize) -> Self {
        let raw = bytes(name.bytes().map(u64::from).sum(), mib << 20);
        let script = "qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2";
        Self::split("qcow2", name, make(&[("disk.raw", &raw)], script, "disk.qcow2"))
    }

    pub(crate) fn squashfs(name: &str) -> Self {
        let script = "mksquashfs rootfs root.squashfs -all-root -quiet -no-progress >&2";
        Self::split("squashfs", name, rooted(name, script, "root.squashfs"))
    }

    pub(crate) fn tarball(name: &str) -> Self {
        let script = "tar --create --xz --owner 0 --group 0 --numeric-owner --file root.tar.xz --directory rootfs .";
        Self::split("root.tar.xz", name, rooted(name, script, "root.tar.xz"))
    }

    /// Metadata and root in one file.
    pub(crate) fn combined(name: &str) -> Self {
        let script = "tar --create --gzip --owner 0 --group 0 --numeric-owner --file all.tar.gz metadata.yaml rootfs";
        let root = rooted(name, script, "all.tar.gz");
        Self { format: "incus_combined.tar.gz", variant: "default", root, metadata: None }
    }

    pub(crate) fn of_variant(self, variant: &'static str) -> Self {
        Self { variant, ..self }
    }

    fn split(format: &'static str, name: &str, root: Vec<u8>) -> Self {
        let script = "tar --create --xz --owner 0 --group 0 --numeric-owner --file incus.tar.xz metadata.yaml";
        let metadata = make(&[("metadata.yaml", metadata(name).as_bytes())], script, "incus.tar.xz");
        Self { format, variant: "default", root, metadata: Some(metadata) }
    }

    /// What Incus knows it by.
    pub(crate) fn fingerprint(&self) -> String {
        let hash = Sha256::new().chain_update(self.metadata.as_deref().unwrap_or_default()).chain_update(&self.root);
        hex::encode(hash.finalize())
    }
}

/// What Incus insists on (`architecture`, `creation_date`), and what it shows.
fn metadata(name: &str) -> String {
    let architecture = std::env::consts::ARCH;
    format!("architecture: {architecture}\ncreation_date: 1767225600\nproperties:\n  description: {name}\n")
}

/// A file that a script makes of the root of a container.
fn rooted(name: &str, script: &str, file: &str) -> Vec<u8> {
    let root = "mkdir -p rootfs/dev rootfs/etc rootfs/proc rootfs/run rootfs/sbin rootfs/sys rootfs/tmp && \
                mv name rootfs/etc/ && mv init rootfs/sbin/ && chmod 755 rootfs/sbin/init";
    let metadata = metadata(name);
    let files = [("init", &**INIT_PROGRAM), ("name", name.as_bytes()), ("metadata.yaml", metadata.as_bytes())];
    make(&files, &format!("{root} && {script}"), file)
}

/// A file that a script makes of others.
fn make(files: &[(&str, &[u8])], script: &str, made: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |(name, bytes): &(&str, &[u8])| std::fs::write(folder.path().join(Path::new(name)), bytes);
    files.iter().try_for_each(write).expect("written");
    run(Command::new("sh").args(["-euc", script]).current_dir(&folder));
    std::fs::read(folder.path().join(made)).expect(made)
}
