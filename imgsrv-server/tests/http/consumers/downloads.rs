//! Programs that download files, in the words of `docs/consume.md`.

use std::collections::BTreeMap;

use super::files::Image;
use super::site::Site;
use crate::server::digest;

on_both!(
    Site:
    a_folder_is_downloaded_and_checked,
    a_download_goes_on_where_it_stopped,
    a_file_is_fetched_in_pieces_at_once,
    a_disk_is_read_where_it_is,
);

/// A published disk, with `latest` at it, and a variant of it; their files, by name.
async fn published(site: &Site, image: &str) -> BTreeMap<String, Vec<u8>> {
    let (disk, cloud) = (Image::disk("disk", 8), Image::disk("cloud", 1).of_variant("cloud"));
    site.release(image, "1.0", &[&disk, &cloud]).await;
    site.point(image, "latest", "1.0").await;
    let known = [Some(disk.root), disk.metadata, Some(cloud.root), cloud.metadata];
    let known: BTreeMap<_, _> = known.into_iter().flatten().map(|bytes| (digest(&bytes), bytes)).collect();
    let sums = site.run(&["curl", "-fsS", &format!("{}/d/{image}/1.0/SHA256SUMS", site.url)]);
    let line = |line: &str| {
        let (hash, name) = line.split_once("  ").unwrap_or_else(|| panic!("no line of sha256sum: {line}"));
        let bytes = known.get(&format!("sha256:{hash}")).unwrap_or_else(|| panic!("not ours: {line}"));
        assert!(!name.contains('/') && name.contains("1.0"), "a file name with its version: {name}");
        (name.to_owned(), bytes.clone())
    };
    let files: BTreeMap<_, _> = sums.lines().map(line).collect();
    assert_eq!(files.len(), 4, "disks and what is attached to them: {sums}");
    files
}

/// Where the larger disk is: URL and bytes.
async fn disk(site: &Site) -> (String, Vec<u8>) {
    let files = published(site, "debian").await;
    let (name, bytes) = files.into_iter().max_by_key(|(_, bytes)| bytes.len()).expect("files");
    (format!("{}/d/debian/1.0/{name}", site.url), bytes)
}

async fn a_folder_is_downloaded_and_checked(site: Site) {
    let files = published(&site, "debian").await;
    for reference in ["1.0", "latest"] {
        let folder = format!("{}/d/debian/{reference}", site.url);
        let script = r#"
            mkdir "$0" && cd "$0"
            curl -fsSL --remote-name "$1/SHA256SUMS"
            for file in $(cut -c67- SHA256SUMS); do
                curl -fsSL --remote-name "$1/$file"
                curl -fsSL --remote-name "$1/$file.sha256"
                sha256sum -c "$file.sha256"
            done
            sha256sum -c SHA256SUMS
        "#;
        let said = site.run(&["sh", "-euc", script, reference, &folder]);
        assert_eq!(said.matches(": OK\n").count(), 2 * files.len(), "{said}");
        // One command for those that keep a copy of a whole version.
        let mirror = format!("mirror-{reference}");
        let ask = ["wget", "--quiet", "--recursive", "--no-parent", "--no-directories", "--header=Accept: text/html"];
        site.run(&[&ask[..], &["--directory-prefix", &mirror, &format!("{folder}/")]].concat());
        for (name, bytes) in &files {
            // In the folder of an alias, the alias stands where the version would.
            let name = name.replace("1.0", reference);
            for folder in [reference, &mirror] {
                assert!(site.read(&format!("{folder}/{name}")) == *bytes, "{folder}/{name}");
            }
        }
    }
}

async fn a_download_goes_on_where_it_stopped(site: Site) {
    let (url, whole) = disk(&site).await;
    let head = site.run(&["curl", "-fsSI", &url]).to_lowercase();
    for line in [
        format!("content-length: {}", whole.len()),
        "accept-ranges: bytes".to_owned(),
        format!("etag: \"{}\"", digest(&whole)),
    ] {
        assert!(head.lines().any(|shown| shown.trim_end() == line), "{line}: {head}");
    }

    site.run(&["curl", "-fsS", "-r", "1000-1999", "-o", "piece", &url]);
    assert!(site.read("piece") == whole[1000..2000]);
    site.run(&["curl", "-fsS", "-r", "-1000", "-o", "end", &url]);
    assert!(site.read("end") == whole[whole.len() - 1000..]);

    for (name, program) in
        [("curl", &["curl", "-fsS", "-C", "-", "-o"][..]), ("wget", &["wget", "--quiet", "--continue", "-O"])]
    {
        std::fs::write(site.work().join(name), &whole[..whole.len() / 3]).expect("what came before it broke off");
        site.run(&[program, &[name, &url]].concat());
        assert!(site.read(name) == whole, "{name}");
        if name == "wget" {
            site.run(&[program, &[name, &url]].concat());
            assert!(site.read(name) == whole, "once more, with nothing left to fetch");
        }
    }
    let conditional = ["curl", "-fsS", "--etag-save", "etag", "--etag-compare", "etag", "-o", "cached", &url];
    site.run(&conditional);
    let fetched = site.run(&[&conditional[..], &["-w", "%{http_code} %{size_download}"]].concat());
    assert_eq!((fetched.as_str(), site.read("cached") == whole), ("304 0", true));

    // By the alias, the whole way.
    let by_alias = url.replace("1.0", "latest");
    std::fs::write(site.work().join("latest"), &whole[..1000]).expect("written");
    site.run(&["curl", "-fsSL", "-C", "-", "-o", "latest", &by_alias]);
    assert!(site.read("latest") == whole);
}

async fn a_file_is_fetched_in_pieces_at_once(site: Site) {
    let (url, whole) = disk(&site).await;
    let file = url.rsplit('/').next().expect("a name");
    let checksum = format!("--checksum=sha-256={}", digest(&whole).trim_start_matches("sha256:"));
    for (name, url) in [("version", url.clone()), ("alias", url.replace("1.0", "latest"))] {
        // Unlimited, one connection is done before others are made.
        let ask = ["aria2c", "-x", "8", "-s", "8", "--min-split-size=1M", "--max-overall-download-limit=8M"];
        let tell = ["--console-log-level=info", "--no-conf", &checksum, "-d", name, &url];
        let said = site.run(&[&ask[..], &tell].concat());
        // Where aria2c is not told a name, it is told one by the answer, as browsers are.
        assert!(site.read(&format!("{name}/{file}")) == whole, "{name}");
        let pieces = said.matches("206 Partial Content").count();
        assert!(pieces > 1, "in {pieces} pieces: {said}");
    }
}

async fn a_disk_is_read_where_it_is(site: Site) {
    let (url, _) = disk(&site).await;
    for (name, url) in [("version", url.clone()), ("alias", url.replace("1.0", "latest"))] {
        let info = site.run(&["qemu-img", "info", "--output", "json", &url]);
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        assert_eq!((&info["format"], &info["virtual-size"]), (&"qcow2".into(), &(8 << 20).into()), "{name}: {info}");
        // Without `-m 1`, qemu-img 10.0 sends several requests at once and now and then waits for ever, whoever serves.
        site.run(&["qemu-img", "convert", "-m", "1", "-O", "raw", &url, name]);
        let raw = crate::server::bytes("disk".bytes().map(u64::from).sum(), 8 << 20);
        assert!(site.read(name) == raw, "{name}");
    }
}
