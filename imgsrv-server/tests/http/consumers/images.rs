//! Incus: what it lists, copies, hands on, refreshes and runs.

use std::io::Write;

use serde_json::json;

use super::daemon::Incus;
use super::files::Image;
use super::site::Site;

on_both!(
    Site:
    a_remote_lists_what_is_published,
    every_kind_of_image_is_copied_whole,
    a_name_may_stand_for_a_container_and_a_machine,
    a_moved_alias_is_followed_and_a_version_stays,
    a_container_runs,
);

async fn a_remote_lists_what_is_published(site: Site) {
    let incus = Incus::start(&site);
    assert_eq!(incus.images("imgsrv:"), Vec::<serde_json::Value>::new(), "an empty list is no error");

    let (disk, squashfs) = (Image::disk("disk", 1), Image::squashfs("squashfs"));
    let (cloud, combined) = (Image::squashfs("cloud").of_variant("cloud"), Image::combined("combined"));
    let bare = Image { metadata: None, ..Image::disk("bare", 1) };
    site.release("machine", "1.0", &[&disk]).await;
    site.release("box", "1.0", &[&squashfs, &cloud]).await;
    site.release("box", "2.0", &[&Image::squashfs("newer")]).await;
    site.release("whole", "1.0", &[&combined]).await;
    site.release("bare", "1.0", &[&bare]).await;
    for (image, alias, version) in
        [("machine", "latest", "1.0"), ("box", "latest", "1.0"), ("box", "stable", "1.0"), ("box", "next", "2.0")]
    {
        site.point(image, alias, version).await;
    }

    incus.an_hour_later();
    let images = incus.images("imgsrv:");
    assert_eq!(images.len(), 5, "all but the one that Incus cannot use: {images:#?}");
    for (image, kind, names) in [
        (&disk, "virtual-machine", &["machine/1.0", "machine/latest"][..]),
        (&squashfs, "container", &["box/1.0", "box/latest", "box/stable"]),
        (&cloud, "container", &["box/1.0/cloud", "box/latest/cloud", "box/stable/cloud"]),
        (&combined, "container", &["whole/1.0"]),
    ] {
        let fingerprint = image.fingerprint();
        let listed = images.iter().find(|listed| listed["fingerprint"] == *fingerprint);
        let listed = listed.unwrap_or_else(|| panic!("{names:?} {fingerprint}: {images:#?}"));
        let size = image.root.len() + image.metadata.as_ref().map_or(0, Vec::len);
        assert_eq!((&listed["type"], &listed["size"]), (&json!(kind), &json!(size)), "{listed}");
        assert_eq!(listed["architecture"], std::env::consts::ARCH, "{listed}");
        let properties = &listed["properties"];
        assert_eq!((&properties["os"], &properties["release"]), (&json!("linux"), &json!("1.0")), "{listed}");
        assert_eq!(properties["variant"], image.variant, "{listed}");
        // Incus adds each with the architecture.
        let aliases = listed["aliases"].as_array().expect("aliases");
        assert_eq!(aliases.len(), 2 * names.len(), "{listed}");
        for name in names {
            assert!(aliases.iter().any(|alias| alias["name"] == *name), "{name}: {listed}");
            assert_eq!(incus.fingerprint(&format!("imgsrv:{name}")), fingerprint);
        }
        for known in [&fingerprint[..], &fingerprint[..12]] {
            assert_eq!(incus.fingerprint(&format!("imgsrv:{known}")), fingerprint);
        }
    }
}

async fn every_kind_of_image_is_copied_whole(site: Site) {
    let incus = Incus::start(&site);
    let images = [
        ("machine", "machine/latest", Image::disk("disk", 4)),
        ("box", "box/latest", Image::squashfs("squashfs")),
        ("cloud", "cloud/latest/cloud", Image::squashfs("cloud").of_variant("cloud")),
        ("tarball", "tarball/latest", Image::tarball("tarball")),
        ("whole", "whole/latest", Image::combined("combined")),
    ];
    for (name, _, image) in &images {
        site.release(name, "1.0", &[image]).await;
        site.point(name, "latest", "1.0").await;
    }
    for (name, alias, image) in &images {
        incus.run(&["image", "copy", &format!("imgsrv:{alias}"), "local:", "--alias", name]);
        assert_eq!(incus.fingerprint(&format!("local:{name}")), image.fingerprint(), "{name}");

        // From the daemon, and by the client from the server itself.
        let mut expected = vec![&image.root];
        expected.extend(&image.metadata);
        expected.sort();
        for source in [format!("local:{name}"), format!("imgsrv:{alias}")] {
            let vm = if image.format == "qcow2" { "--vm" } else { "--vm=false" };
            let exported = incus.files_of(&["image", "export", &source, vm]);
            let mut files: Vec<_> = exported.iter().map(|(_, bytes)| bytes).collect();
            files.sort();
            let names: Vec<_> = exported.iter().map(|(name, bytes)| (name, bytes.len())).collect();
            assert!(files == expected, "{source}: {names:?}");
        }
    }
    let copied = incus.images("local:");
    assert_eq!(copied.len(), images.len(), "{copied:#?}");
}

async fn a_name_may_stand_for_a_container_and_a_machine(site: Site) {
    let incus = Incus::start(&site);
    let squashfs = Image::squashfs("both");
    let disk = Image { metadata: squashfs.metadata.clone(), ..Image::disk("both", 1) };
    site.release("both", "1.0", &[&squashfs, &disk]).await;
    site.point("both", "latest", "1.0").await;
    for (image, kind) in [(&squashfs, "--vm=false"), (&disk, "--vm")] {
        incus.run(&["image", "copy", "imgsrv:both/latest", "local:", kind]);
        let copied = incus.images("local:");
        assert!(copied.iter().any(|copied| copied["fingerprint"] == *image.fingerprint()), "{kind}: {copied:#?}");
    }
}

async fn a_moved_alias_is_followed_and_a_version_stays(site: Site) {
    let incus = Incus::start(&site);
    let [first, second] = ["first", "second"].map(Image::squashfs);
    site.release("box", "1.0", &[&first]).await;
    site.point("box", "latest", "1.0").await;
    incus.run(&["image", "copy", "imgsrv:box/latest", "local:", "--alias", "box", "--auto-update"]);
    assert_eq!(incus.fingerprint("local:box"), first.fingerprint());

    site.release("box", "2.0", &[&second]).await;
    site.point("box", "latest", "2.0").await;
    // Incus may know no better for an hour; the old version is there for those that do not.
    incus.run(&["image", "refresh", "local:box"]);
    assert_eq!(incus.fingerprint("local:box"), first.fingerprint());
    incus.an_hour_later();
    incus.run(&["image", "refresh", "local:box"]);
    assert_eq!(incus.fingerprint("local:box"), second.fingerprint());

    assert_eq!(incus.fingerprint("imgsrv:box/latest"), second.fingerprint());
    assert_eq!(incus.fingerprint("imgsrv:box/1.0"), first.fingerprint());
    incus.run(&["image", "copy", "imgsrv:box/1.0", "local:", "--alias", "pinned", "--auto-update"]);
    incus.an_hour_later();
    incus.run(&["image", "refresh", "local:pinned"]);
    assert_eq!(incus.fingerprint("local:pinned"), first.fingerprint());

    // Back again: a release that was withdrawn.
    site.point("box", "latest", "1.0").await;
    incus.an_hour_later();
    assert_eq!(incus.fingerprint("imgsrv:box/latest"), first.fingerprint());
    incus.run(&["image", "refresh", "local:box"]);
    assert_eq!(incus.fingerprint("local:box"), first.fingerprint());
}

async fn a_container_runs(site: Site) {
    let incus = Incus::start(&site);
    if let Err(why) = runs_containers(&incus) {
        let line = "!".repeat(100);
        // Past the test runner, which keeps what a test prints to itself.
        let loud =
            format!("\n{line}\n  NOT CHECKED: a container from imgsrv, because there is none here:\n{why}\n{line}\n");
        std::io::stderr().write_all(loud.as_bytes()).ok();
        return;
    }
    let container = incus.container();
    for image in [Image::squashfs("squashfs"), Image::tarball("tarball"), Image::combined("combined")] {
        let name = image.format.replace('.', "-").replace('_', "-");
        site.release(&name, "1.0", &[&image]).await;
        site.point(&name, "latest", "1.0").await;
        incus.an_hour_later();
        launch(&incus, &format!("imgsrv:{name}/latest")).unwrap_or_else(|why| panic!("{name}: {why}"));
        let said = incus.run(&["exec", &container, "--", "/sbin/init", "it runs"]);
        assert_eq!(said.trim_end(), "it runs");
        let shown = incus.run(&["list", "--format", "json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(shown[0]["status"], "Running", "{shown}");
        assert_eq!(shown[0]["config"]["volatile.base_image"], image.fingerprint());
        incus.run(&["delete", "--force", &container]);
    }
}

/// Whether this machine runs containers at all: one of the same making from files, so that what stops a container from
/// the server is the server's fault.
fn runs_containers(incus: &Incus) -> Result<(), String> {
    let image = Image::squashfs("from files");
    let folder = tempfile::tempdir().expect("a folder");
    let [metadata, root] = ["incus.tar.xz", "root.squashfs"].map(|file| folder.path().join(file));
    std::fs::write(&metadata, image.metadata.as_ref().expect("metadata")).expect("written");
    std::fs::write(&root, &image.root).expect("written");
    let [metadata, root] = [&metadata, &root].map(|file| file.to_str().expect("a path"));
    incus.run(&["image", "import", metadata, root, "--alias", "control"]);
    launch(incus, "local:control")?;
    incus.run(&["delete", "--force", &incus.container()]);
    Ok(())
}

fn launch(incus: &Incus, image: &str) -> Result<(), String> {
    let container = incus.container();
    let line = ["launch", image, &container, "--storage", "default", "--no-profiles"];
    let output = incus.command(&line).output().expect("incus");
    if output.status.success() {
        return Ok(());
    }
    let mut why = String::from_utf8_lossy(&output.stderr).into_owned();
    let log = incus.command(&["info", "--show-log", &container]).output().expect("incus");
    why.push_str(&String::from_utf8_lossy(&log.stdout));
    Err(why)
}
