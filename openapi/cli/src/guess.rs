//! What the name and the first bytes of a file say about the image in it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use imgsrv_client::types::Format;

use crate::failure::Failure;

/// Where the names end that formats have; the first that fits counts.
const ENDINGS: &[(&str, Format)] = &[
    ("incus_combined.tar.gz", Format::IncusCombinedTarGz),
    ("root.tar.xz", Format::RootTarXz),
    ("rootfs.tar.xz", Format::RootTarXz),
    (".squashfs", Format::Squashfs),
    (".qcow2", Format::Qcow2),
    (".raw", Format::Raw),
    (".raw.gz", Format::RawGz),
    (".img.gz", Format::RawGz),
    (".raw.xz", Format::RawXz),
    (".img.xz", Format::RawXz),
    (".raw.zst", Format::RawZst),
    (".img.zst", Format::RawZst),
    (".iso", Format::Iso),
    (".vmdk", Format::Vmdk),
    (".vhdx", Format::Vhdx),
    (".ova", Format::Ova),
];

/// Where in a file bytes say what it is, and for which of the formats: the headers that QEMU, squashfs-tools, RFC 1952
/// (gzip), xz, RFC 8878 (zstd), ECMA-119 (ISO 9660), POSIX (ustar), VMware and Microsoft document.
const MARKS: &[(usize, &[u8], &[Format])] = &[
    (0, b"QFI\xfb", &[Format::Qcow2]),
    (0, b"hsqs", &[Format::Squashfs]),
    (0, b"\x1f\x8b", &[Format::RawGz, Format::IncusCombinedTarGz]),
    (0, b"\xfd7zXZ\0", &[Format::RawXz, Format::RootTarXz]),
    (0, b"\x28\xb5\x2f\xfd", &[Format::RawZst]),
    (0, b"KDMV", &[Format::Vmdk]),
    (0, b"vhdxfile", &[Format::Vhdx]),
    (257, b"ustar", &[Format::Ova]),
    (32769, b"CD001", &[Format::Iso]),
];

/// As Debian and Incus call them, and as others do.
const ARCHITECTURES: &[(&str, &[&str])] = &[
    ("amd64", &["amd64", "x86_64", "x86-64", "x64"]),
    ("arm64", &["arm64", "aarch64"]),
    ("armhf", &["armhf", "armv7l", "armv7"]),
    ("i386", &["i386", "i686"]),
    ("ppc64el", &["ppc64el", "ppc64le"]),
    ("riscv64", &["riscv64"]),
    ("s390x", &["s390x"]),
    ("loongarch64", &["loongarch64", "loong64"]),
];

const SYSTEMS: &[(&str, &[&str])] = &[
    ("freebsd", &["freebsd"]),
    ("netbsd", &["netbsd"]),
    ("openbsd", &["openbsd"]),
    ("windows", &["windows", "win10", "win11"]),
    (
        "linux",
        &[
            "linux",
            "almalinux",
            "alpine",
            "amazonlinux",
            "archlinux",
            "bookworm",
            "bullseye",
            "centos",
            "coreos",
            "debian",
            "devuan",
            "fedora",
            "flatcar",
            "gentoo",
            "jammy",
            "kali",
            "nixos",
            "noble",
            "opensuse",
            "openwrt",
            "oracle",
            "oraclelinux",
            "resolute",
            "rhel",
            "rocky",
            "sles",
            "trixie",
            "ubuntu",
            "void",
        ],
    ),
];

/// What the file is, by its name, unless its bytes say otherwise.
pub(crate) fn format(path: &Path, name: &str) -> Result<Format, Failure> {
    let head = head(path).map_err(|err| Failure::file(path, &err))?;
    format_of(name, &head).map_err(|rule| Failure::usage(rule).about(path.display()))
}

pub(crate) fn format_of(name: &str, head: &[u8]) -> Result<Format, &'static str> {
    let name = name.to_ascii_lowercase();
    let named = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| *format);
    let marked = MARKS.iter().find(|(at, mark, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark)));
    let marked = marked.map(|(_, _, formats)| *formats);
    // Debian calls raw disks .img, Ubuntu what is qcow2.
    let bare = Path::new(&name).extension().is_some_and(|extension| extension == "img");
    match (named, marked) {
        // A disk may begin as a CD does, so that it boots from either.
        (Some(Format::Raw), None | Some([Format::Iso])) => Ok(Format::Raw),
        // A text that describes the disk.
        (Some(Format::Vmdk), None) if head.starts_with(b"# Disk DescriptorFile") => Ok(Format::Vmdk),
        (Some(format), Some(formats)) if formats.contains(&format) => Ok(format),
        (Some(_), _) => Err("its name and its bytes say different things about its format; say which with --format"),
        (None, None) if bare => Ok(Format::Raw),
        (None, Some([format])) => Ok(*format),
        (None, _) => Err("neither its name nor its bytes tell its format; say which with --format"),
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(32_774).read_to_end(&mut head)?;
    Ok(head)
}

/// The architecture that the name has a word for.
pub(crate) fn architecture(name: &str) -> Option<&'static str> {
    word_for(name, ARCHITECTURES)
}

/// The operating system: what its name has a word for, or what only Linux images are.
pub(crate) fn operating_system(name: &str, format: Format) -> Option<&'static str> {
    let container = matches!(format, Format::Squashfs | Format::RootTarXz | Format::IncusCombinedTarGz);
    word_for(name, SYSTEMS).or(container.then_some("linux"))
}

fn word_for(name: &str, known: &[(&'static str, &[&str])]) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    known.iter().find(|(_, words)| words.iter().any(|word| has_word(&name, word))).map(|(meaning, _)| *meaning)
}

fn has_word(name: &str, word: &str) -> bool {
    name.match_indices(word).any(|(at, _)| {
        let is_part = |c: char| c.is_ascii_alphabetic();
        // `debian12` is Debian, `void` is not in `avoided`, and `arm64` is not in `arm64ec`.
        !name[..at].ends_with(is_part) && !name[at + word.len()..].starts_with(is_part)
    })
}

/// What the bytes of an artifact are called.
pub(crate) fn media_type(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "application/x-qemu-disk",
        Format::RawGz | Format::IncusCombinedTarGz => "application/gzip",
        Format::RawXz | Format::RootTarXz => "application/x-xz",
        Format::RawZst => "application/zstd",
        Format::Iso => "application/vnd.efi.iso",
        Format::Vmdk => "application/x-vmdk",
        Format::Vhdx => "application/x-vhdx",
        Format::Ova => "application/x-tar",
        Format::Squashfs => "application/vnd.squashfs",
        Format::Raw => "application/octet-stream",
    }
}

/// What goes with an artifact, by the end of its name.
pub(crate) fn media_type_of_attachment(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "txt" | "log" | "sum" => "text/plain",
        "json" | "sbom" => "application/json",
        "yaml" | "yml" => "application/yaml",
        "xz" => "application/x-xz",
        "gz" => "application/gzip",
        "zst" => "application/zstd",
        "asc" | "sig" | "gpg" => "application/pgp-signature",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let qcow2 = b"QFI\xfb\0\0\0\x03";
        let mut iso = vec![0; 32_769];
        iso.extend(b"CD001");
        let files: &[(&str, &[u8], Option<Format>)] = &[
            ("debian-12-genericcloud-amd64.qcow2", qcow2, Some(Format::Qcow2)),
            ("noble-server-cloudimg-amd64.img", qcow2, Some(Format::Qcow2)),
            ("DISK.IMG", b"\0\0\0\0", Some(Format::Raw)),
            ("disk.raw", b"", Some(Format::Raw)),
            ("disk.raw", qcow2, None),
            ("disk.raw", &iso, Some(Format::Raw)),
            ("disk.qcow2", b"\0\0\0\0", None),
            ("disk.img.xz", b"\xfd7zXZ\0\0", Some(Format::RawXz)),
            ("rootfs.squashfs", b"hsqs", Some(Format::Squashfs)),
            ("alpine.root.tar.xz", b"\xfd7zXZ\0\0", Some(Format::RootTarXz)),
            ("alpine.incus_combined.tar.gz", b"\x1f\x8b\x08", Some(Format::IncusCombinedTarGz)),
            ("something.tar.gz", b"\x1f\x8b\x08", None),
            ("netinst.iso", &iso, Some(Format::Iso)),
            ("disk.vmdk", b"# Disk DescriptorFile\n", Some(Format::Vmdk)),
            ("disk", b"vhdxfile", Some(Format::Vhdx)),
            ("disk", b"\0\0\0\0", None),
        ];
        for (name, head, expected) in files {
            assert_eq!(format_of(name, head).ok(), *expected, "{name}");
        }
    }

    #[test]
    fn names() {
        for (name, system, arch) in [
            ("debian-12-genericcloud-amd64.qcow2", Some("linux"), Some("amd64")),
            ("Fedora-Cloud-Base-Generic-43.x86_64.qcow2", Some("linux"), Some("amd64")),
            ("FreeBSD-14.3-RELEASE-arm64-aarch64-ufs.qcow2", Some("freebsd"), Some("arm64")),
            ("debian12_riscv64.raw", Some("linux"), Some("riscv64")),
            ("disk.qcow2", None, None),
            ("avoided-charm64.qcow2", None, None),
        ] {
            assert_eq!((operating_system(name, Format::Qcow2), architecture(name)), (system, arch), "{name}");
        }
        assert_eq!(operating_system("rootfs.squashfs", Format::Squashfs), Some("linux"));
    }
}
