//! Names of things in the catalogue. The rules are the wire contract's; clients in use depend on them.

use super::text::{text, words};

text!(
    /// An image is a namespace for its versions.
    ImageName, "image name", r"^[a-z0-9][a-z0-9._-]{0,127}$", "debian-13"
);
text!(VersionName, "version", r"^[A-Za-z0-9][A-Za-z0-9._+:-]{0,127}$", "2026.11.0");
text!(
    /// Either a version or an alias; a published version wins over an alias of the same text.
    Reference, "reference", r"^[A-Za-z0-9][A-Za-z0-9._+:-]{0,127}$", "latest"
);
text!(AliasName, "alias", r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", "latest");
text!(Variant, "variant", r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$", "default");
text!(OperatingSystem, "operating system", r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$", "linux");
text!(Architecture, "architecture", r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$", "amd64");
text!(AttachmentName, "attachment name", r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$", "incus.tar.xz");
text!(
    /// Type and subtype are names of RFC 6838 §4.2; parameters may follow (RFC 9110 §8.3.1).
    MediaType, "media type",
    r#"^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}( ?; ?[A-Za-z0-9!#$&^_.+-]{1,64}=([A-Za-z0-9!#$%&'*+.^_`|~-]{1,127}|"[ !#-\[\]-~]{0,127}")){0,8}$"#,
    "application/x-qemu-disk"
);
text!(
    /// A hint only: it may hold spaces, but no path separator and no control character, and is neither `.` nor `..`.
    FileName, "file name",
    r"^(\.?[^./\\\s\u0085\ufeff\u0000-\u001f\u007f]|[^./\\\u0000-\u001f\u007f][^/\\\s\u0085\ufeff\u0000-\u001f\u007f]|[^/\\\u0000-\u001f\u007f]{2,254}[^/\\\s\u0085\ufeff\u0000-\u001f\u007f])$",
    "disk.qcow2"
);
text!(
    /// What a file of a version is called in its directory. Its parts may have so many characters together.
    NameInDirectory, "name in a directory", r"^[A-Za-z0-9][A-Za-z0-9._+:-]{0,699}$",
    "debian-13.1-linux-amd64.qcow2"
);
text!(
    /// Text for people: a display name, a description, a token's name. Not blank, no control characters but line breaks and tabs.
    Prose, "text",
    r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]*[^\s\u0085\ufeff\u0000-\u001f\u007f][^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]*$",
    "Debian 13 with cloud-init", 8000 characters,
    "must be 1 to 8000 characters, not blank, without control characters but line breaks and tabs"
);

impl Variant {
    /// The variant of an artifact that names none.
    pub fn default_variant() -> Self {
        "default".parse().expect("a constant that follows the rule")
    }
}

words!(
    /// What a file of an artifact is.
    Format, "format", {
        /// A plain disk image.
        Raw = "raw",
        /// A plain disk image, gzip.
        RawGz = "raw.gz",
        /// A plain disk image, xz.
        RawXz = "raw.xz",
        /// A plain disk image, Zstandard.
        RawZst = "raw.zst",
        /// QEMU copy-on-write, version 2 or 3.
        Qcow2 = "qcow2",
        /// An ISO 9660 image.
        Iso = "iso",
        /// A VMware disk.
        Vmdk = "vmdk",
        /// A Hyper-V disk.
        Vhdx = "vhdx",
        /// An Open Virtualization Format archive.
        Ova = "ova",
        /// A container's root file system as squashfs.
        Squashfs = "squashfs",
        /// A container's root file system as a tar archive, xz.
        RootTarXz = "root.tar.xz",
        /// Incus metadata and root file system in one tar archive, gzip.
        IncusCombinedTarGz = "incus_combined.tar.gz",
    }
);
