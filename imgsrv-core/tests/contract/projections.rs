//! What others see of the catalogue: Simple Streams, and what an embedder adds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use imgsrv_core::model::{ArtifactId, Catalog, Digest, ImageName, Manifest, Scope, VersionName};
use imgsrv_core::projection::{File, Projection, SimpleStreams};
use imgsrv_core::{BoxError, Engine, Error};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::fixture::{Fixture, artifact, attachment};

crate::behaviours!(
    nothing_is_listed_of_an_empty_catalogue,
    what_incus_reads,
    the_next_answer_of_any_node_shows_a_change,
    what_did_not_change_is_kept,
    artifacts_with_one_fingerprint_are_listed_once,
    a_name_never_means_other_bytes,
    many_artifacts_with_one_fingerprint_take_no_time,
    a_database_that_has_gone_back_is_read_anew,
    what_is_not_listed_says_why,
    a_fingerprint_is_computed_once,
    a_bad_row_takes_nothing_else_away,
    those_who_ask_at_once_wait_for_one,
    a_projection_that_fails_fails_alone,
    names_of_projections_are_unique,
);

type Draft = (ImageName, VersionName);

/// A file of Simple Streams.
async fn stream(engine: &Engine, path: &str) -> Value {
    let file = engine.projected("streams", path).await.expect("a catalogue").expect("a file");
    let whole = file.body.concat();
    assert_eq!((whole.len() as u64, Digest::of(&whole)), (file.size, file.digest.clone()));
    assert_eq!(file.media_type, "application/json");
    let document = serde_json::from_slice(&whole).expect("JSON");
    let schema = if path == "v1/index.json" { &INDEX } else { &IMAGES };
    let errors: Vec<String> =
        schema.iter_errors(&document).map(|err| format!("{}: {err}", err.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    document
}

static INDEX: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../../../openapi/simplestreams/index.schema.json")));
static IMAGES: LazyLock<Validator> = LazyLock::new(|| validator(IMAGES_SCHEMA));
const IMAGES_SCHEMA: &str = include_str!("../../../openapi/simplestreams/images.schema.json");

/// A schema, which may name the one of the images.
fn validator(schema: &str) -> Validator {
    let parse = |text| serde_json::from_str::<Value>(text).expect("JSON");
    let images =
        jsonschema::Registry::new().add("urn:imgsrv:simplestreams:images", parse(IMAGES_SCHEMA)).expect("a schema");
    let images = images.prepare().expect("schemas");
    jsonschema::options().with_registry(&images).build(&parse(schema)).expect("a schema")
}

/// The products of Simple Streams; the index lists the same.
async fn products(engine: &Engine) -> serde_json::Map<String, Value> {
    let (index, images) = (stream(engine, "v1/index.json").await, stream(engine, "v1/images.json").await);
    let products = images["products"].as_object().expect("products").clone();
    let keys: Vec<&String> = products.keys().collect();
    let listed = &index["index"]["images"]["products"];
    assert_eq!(listed.as_array().map_or(0, Vec::len), keys.len());
    assert!(keys.is_empty() || *listed == json!(keys), "{listed}");
    products
}

async fn aliases(engine: &Engine) -> Vec<String> {
    let products = products(engine).await;
    products.iter().map(|(key, product)| format!("{key} = {}", product["aliases"].as_str().expect("aliases"))).collect()
}

/// Adds an artifact that Incus can use, of that format and in that variant.
async fn add(f: &Fixture, draft: &Draft, format: &str, variant: &str, metadata: &[u8], root: &[u8]) -> ArtifactId {
    f.upload(metadata).await;
    f.upload(root).await;
    let mut new = artifact(format, root);
    new.variant = variant.parse().expect("a variant");
    let id = f.engine.add_artifact(&draft.0, &draft.1, new).await.expect("an artifact").id;
    let metadata = attachment("incus.tar.xz", metadata);
    f.engine.add_attachment(&draft.0, &draft.1, id, metadata).await.expect("metadata");
    id
}

/// A published disk.
async fn disk(f: &Fixture, name: &str, number: &str, root: &[u8]) -> Draft {
    let draft = f.draft_as(name, number).await;
    add(f, &draft, "qcow2", "default", b"metadata", root).await;
    publish(f, &draft).await;
    draft
}

async fn publish(f: &Fixture, draft: &Draft) {
    let job = f.publish(draft).await;
    assert_eq!(job.job.state().word(), "succeeded", "{:?}", job.job.last_error);
}

async fn point(f: &Fixture, alias: &str, at: &Draft) {
    f.engine.put_alias(&at.0, &alias.parse().expect("an alias"), &at.1).await.expect("an alias");
}

async fn left_out(engine: &Engine, of: &Draft) -> Vec<String> {
    let manifest = engine.get_manifest(&of.0, &of.1, Scope::All).await.expect("a manifest");
    let reasons = engine.left_out("streams", &manifest).await.expect("reasons");
    let of_entry = |entry: &imgsrv_core::model::ArtifactEntry| reasons.get(&entry.artifact.id).cloned();
    manifest.artifacts.iter().map(|entry| of_entry(entry).unwrap_or_default()).collect()
}

async fn nothing_is_listed_of_an_empty_catalogue(f: &Fixture) {
    let index = json!({ "format": "index:1.0", "index": { "images": {
        "datatype": "image-downloads", "format": "products:1.0", "path": "streams/v1/images.json",
    }}});
    assert_eq!(stream(&f.engine, "v1/index.json").await, index);
    let images = json!({
        "content_id": "images", "datatype": "image-downloads", "format": "products:1.0", "products": {},
    });
    assert_eq!(stream(&f.engine, "v1/images.json").await, images);
    for (projection, path) in [("streams", "v1/other.json"), ("streams", ""), ("other", "v1/index.json")] {
        assert!(f.engine.projected(projection, path).await.expect("an answer").is_none());
    }
}

async fn what_incus_reads(f: &Fixture) {
    let draft = f.draft().await;
    let (metadata, root, tar, squashfs) = (b"the metadata", b"a disk", b"a tarball", b"a file system");
    add(f, &draft, "qcow2", "default", metadata, root).await;
    add(f, &draft, "squashfs", "default", metadata, squashfs).await;
    add(f, &draft, "root.tar.xz", "cloud", metadata, tar).await;
    f.upload(b"all in one").await;
    let mut combined = artifact("incus_combined.tar.gz", b"all in one");
    combined.architecture = "aarch64".parse().expect("an architecture");
    combined.requirements = [("secureboot".to_owned(), "false".to_owned())].into();
    f.engine.add_artifact(&draft.0, &draft.1, combined).await.expect("an artifact");
    f.artifact(&draft, "iso", b"nothing for Incus").await;
    publish(f, &draft).await;
    point(f, "stable", &draft).await;
    point(f, "latest", &draft).await;

    let published = f.engine.get_manifest(&draft.0, &draft.1, Scope::Published).await.expect("a manifest");
    let serial = published.version.published_at.expect("published").format("%Y%m%d_%H:%M").to_string();
    let fingerprint = |root: &[u8]| Digest::of(&[metadata, root].concat()).hex().to_owned();
    let item = |ftype: &str, file: &str, bytes: &[u8]| {
        json!({
            "ftype": ftype, "path": format!("d/debian/1.0/{file}"), "size": bytes.len(),
            "sha256": Digest::of(bytes).hex(),
        })
    };
    let with = |mut item: Value, member: &str, fingerprint: String| {
        item[member] = fingerprint.into();
        item
    };
    let product = |aliases: &str, arch: &str, variant: &str, items: Value| {
        json!({
            "aliases": aliases, "arch": arch, "os": "linux", "release": "1.0", "release_title": "1.0",
            "variant": variant, "versions": { &serial: { "items": items } },
        })
    };
    let metadata_of_two = with(
        item("incus.tar.xz", "debian-1.0-linux-amd64.qcow2.incus.tar.xz", metadata),
        "combined_disk-kvm-img_sha256",
        fingerprint(root),
    );
    let expected = json!({
        "debian:1.0:amd64:cloud": product("debian/1.0/cloud,debian/latest/cloud,debian/stable/cloud", "amd64", "cloud", json!({
            "incus.tar.xz": with(
                item("incus.tar.xz", "debian-1.0-linux-amd64-cloud.root.tar.xz.incus.tar.xz", metadata),
                "combined_rootxz_sha256",
                fingerprint(tar),
            ),
            "root.tar.xz": item("root.tar.xz", "debian-1.0-linux-amd64-cloud.root.tar.xz", tar),
        })),
        "debian:1.0:amd64:default": product("debian/1.0,debian/latest,debian/stable", "amd64", "default", json!({
            "incus.tar.xz": with(metadata_of_two, "combined_squashfs_sha256", fingerprint(squashfs)),
            "disk-kvm.img": item("disk-kvm.img", "debian-1.0-linux-amd64.qcow2", root),
            "squashfs": item("squashfs", "debian-1.0-linux-amd64.squashfs", squashfs),
        })),
        "debian:1.0:arm64:default": with_requirements(product("debian/1.0,debian/latest,debian/stable", "arm64", "default", json!({
            "incus_combined.tar.gz": item("incus_combined.tar.gz", "debian-1.0-linux-aarch64.incus_combined.tar.gz", b"all in one"),
        }))),
    });
    assert_eq!(Value::Object(products(&f.engine).await), expected);
    let document = stream(&f.engine, "v1/images.json").await.to_string();
    for (from, to) in
        [(&*serial, "1.0"), ("disk-kvm.img", "disk1.img"), ("\"size\":", "\"length\":"), ("d/debian/", "/d/debian/")]
    {
        let wrong = serde_json::from_str(&document.replace(from, to)).expect("JSON");
        assert!(
            document.contains(from) && !IMAGES.is_valid(&wrong),
            "{to} in the place of {from} is told from what Incus reads"
        );
    }
}

fn with_requirements(mut product: Value) -> Value {
    product["requirements"] = json!({"secureboot": "false"});
    product
}

async fn the_next_answer_of_any_node_shows_a_change(f: &Fixture) {
    assert!(aliases(&f.other).await.is_empty());
    let one = disk(f, "debian", "1.0", b"one").await;
    assert_eq!(aliases(&f.other).await, ["debian:1.0:amd64:default = debian/1.0"]);
    point(f, "latest", &one).await;
    assert_eq!(aliases(&f.other).await, ["debian:1.0:amd64:default = debian/1.0,debian/latest"]);
    let two = disk(f, "debian", "2.0", b"two").await;
    point(f, "latest", &two).await;
    disk(f, "alpine", "3.22", b"three").await;
    let expected = [
        "alpine:3.22:amd64:default = alpine/3.22",
        "debian:1.0:amd64:default = debian/1.0",
        "debian:2.0:amd64:default = debian/2.0,debian/latest",
    ];
    for engine in [&f.other, &f.engine] {
        assert_eq!(aliases(engine).await, expected);
    }
    f.engine.delete_alias(&two.0, &"latest".parse().expect("an alias")).await.expect("deleted");
    assert_eq!(aliases(&f.other).await[2], "debian:2.0:amd64:default = debian/2.0");
    // An alias that is called like a published version means that version, whatever it points at.
    point(f, "2.0", &one).await;
    assert_eq!(
        aliases(&f.other).await[1..],
        ["debian:1.0:amd64:default = debian/1.0", "debian:2.0:amd64:default = debian/2.0"]
    );
}

async fn what_did_not_change_is_kept(f: &Fixture) {
    disk(f, "alpine", "3.22", b"one").await;
    let debian = disk(f, "debian", "1.0", b"two").await;
    let before = f.engine.catalog().await.expect("a catalogue");
    assert!(Arc::ptr_eq(&before, &f.engine.catalog().await.expect("the same catalogue")));
    // A draft is nothing to the public.
    f.draft_as("debian", "2.0").await;
    f.draft_as("fedora", "1").await;
    assert!(Arc::ptr_eq(&before, &f.engine.catalog().await.expect("the same catalogue")));
    point(f, "latest", &debian).await;
    let after = f.engine.catalog().await.expect("another catalogue");
    assert!(after.generation > before.generation);
    let names: Vec<&str> = after.images.iter().map(|image| image.image.name.as_ref()).collect();
    assert_eq!(names, ["alpine", "debian"]);
    assert!(Arc::ptr_eq(&before.images[0], &after.images[0]) && !Arc::ptr_eq(&before.images[1], &after.images[1]));
    assert!(Arc::ptr_eq(&before.images[1].versions[0], &after.images[1].versions[0]), "a version is read once");
}

async fn artifacts_with_one_fingerprint_are_listed_once(f: &Fixture) {
    let old = disk(f, "debian", "1.0", b"the same").await;
    point(f, "stable", &old).await;
    f.clock.advance(chrono::TimeDelta::seconds(1));
    let new = disk(f, "debian", "2.0", b"the same").await;
    assert_eq!(aliases(&f.engine).await, ["debian:2.0:amd64:default = debian/2.0,debian/1.0,debian/stable"]);
    assert_eq!(left_out(&f.engine, &new).await, [""]);
    let [reason] = &left_out(&f.engine, &old).await[..] else { panic!("one artifact") };
    assert!(reason.starts_with("debian/2.0 has the same bytes"), "{reason}");
    // Under another image too; and the one that was listed before is told of no more.
    f.clock.advance(chrono::TimeDelta::seconds(1));
    disk(f, "copy", "1", b"the same").await;
    assert_eq!(aliases(&f.engine).await, ["copy:1:amd64:default = copy/1,debian/1.0,debian/2.0,debian/stable"]);
    // An alias means one image of a kind: what still lists a disk of its own keeps its name to itself.
    f.clock.advance(chrono::TimeDelta::seconds(1));
    let mixed = f.draft_as("mixed", "1").await;
    add(f, &mixed, "squashfs", "default", b"metadata", b"root 1").await;
    add(f, &mixed, "root.tar.xz", "default", b"metadata", b"tar 1").await;
    publish(f, &mixed).await;
    f.clock.advance(chrono::TimeDelta::seconds(1));
    let mixed = f.draft_as("mixed", "2").await;
    add(f, &mixed, "squashfs", "default", b"metadata", b"root 1").await;
    add(f, &mixed, "root.tar.xz", "default", b"metadata", b"tar 2").await;
    publish(f, &mixed).await;
    assert_eq!(aliases(&f.engine).await[1..], ["mixed:1:amd64:default = mixed/1", "mixed:2:amd64:default = mixed/2"]);
    let products = products(&f.engine).await;
    let items = |key: &str| {
        let (_, version) = products[key]["versions"].as_object().expect("versions").iter().next().expect("a version");
        version["items"].as_object().expect("items").keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(items("mixed:1:amd64:default"), ["incus.tar.xz", "root.tar.xz"]);
    assert_eq!(items("mixed:2:amd64:default"), ["incus.tar.xz", "root.tar.xz", "squashfs"]);
}

async fn a_name_never_means_other_bytes(f: &Fixture) {
    // Under the names of 1.0 there was no container, and is none.
    disk(f, "one", "1.0", b"disk").await;
    f.clock.advance(chrono::TimeDelta::seconds(1));
    let both = f.draft_as("one", "2.0").await;
    add(f, &both, "qcow2", "default", b"metadata", b"disk").await;
    add(f, &both, "squashfs", "default", b"metadata", b"root").await;
    publish(f, &both).await;
    assert_eq!(aliases(&f.engine).await, ["one:2.0:amd64:default = one/2.0"]);
    let [reason] = &left_out(&f.engine, &("one".parse().expect("a name"), "1.0".parse().expect("a version"))).await[..]
    else {
        panic!("one artifact")
    };
    assert!(reason.contains("not listed under this version's aliases"), "{reason}");
    // Of two containers Incus takes the squashfs.
    for (number, root) in [("1", None), ("2", Some(b"preferred"))] {
        f.clock.advance(chrono::TimeDelta::seconds(1));
        let draft = f.draft_as("two", number).await;
        add(f, &draft, "root.tar.xz", "default", b"metadata", b"tar").await;
        if let Some(root) = root {
            add(f, &draft, "squashfs", "default", b"metadata", root).await;
        }
        publish(f, &draft).await;
    }
    assert_eq!(aliases(&f.engine).await[1..], ["two:2:amd64:default = two/2"]);
    // Nor does it mean another architecture.
    for (number, architecture) in [("1", "arm64"), ("2", "amd64")] {
        f.clock.advance(chrono::TimeDelta::seconds(1));
        let draft = f.draft_as("three", number).await;
        f.upload(b"all in one").await;
        let mut combined = artifact("incus_combined.tar.gz", b"all in one");
        combined.architecture = architecture.parse().expect("an architecture");
        f.engine.add_artifact(&draft.0, &draft.1, combined).await.expect("an artifact");
        publish(f, &draft).await;
    }
    assert_eq!(aliases(&f.engine).await[1..2], ["three:2:amd64:default = three/2"]);
}

async fn many_artifacts_with_one_fingerprint_take_no_time(f: &Fixture) {
    for number in 0..30 {
        disk(f, "nightly", &number.to_string(), b"the same").await;
        f.clock.advance(chrono::TimeDelta::seconds(1));
    }
    let [only] = &aliases(&f.engine).await[..] else { panic!("one product") };
    assert_eq!(only.split(',').count(), 30, "{only}");
}

async fn a_database_that_has_gone_back_is_read_anew(f: &Fixture) {
    disk(f, "debian", "1.0", b"one").await;
    let lost = disk(f, "debian", "2.0", b"two").await;
    point(f, "latest", &lost).await;
    assert_eq!(aliases(&f.engine).await.len(), 2);
    f.sql("delete from aliases").await.expect("an alias less");
    f.sql("update catalog_generation set n = n - 1").await.expect("a generation back");
    f.sql("update images set generation = generation - 1").await.expect("a generation back");
    let expected = ["debian:1.0:amd64:default = debian/1.0", "debian:2.0:amd64:default = debian/2.0"];
    assert_eq!(aliases(&f.engine).await, expected);
}

async fn what_is_not_listed_says_why(f: &Fixture) {
    let draft = f.draft().await;
    f.artifact(&draft, "raw", b"raw").await;
    f.artifact(&draft, "squashfs", b"no metadata").await;
    add(f, &draft, "qcow2", "default", b"metadata", b"disk").await;
    let of_draft =
        ["Incus has no use for this format", "there is no attachment incus.tar.xz", "the version is not published"];
    assert_eq!(left_out(&f.engine, &draft).await, of_draft);
    publish(f, &draft).await;
    assert_eq!(left_out(&f.other, &draft).await, [of_draft[0], of_draft[1], ""]);
    let manifest = f.engine.get_manifest(&draft.0, &draft.1, Scope::All).await.expect("a manifest");
    assert!(f.engine.left_out("other", &manifest).await.expect("reasons").is_empty());
    f.sql("update publish_steps set output = null where name = 'incus_index'").await.expect("no output");
    let fresh = f.builder().build().await.expect("a node");
    assert_eq!(left_out(&fresh, &draft).await[2], "its publish job did not compute its fingerprint");
    assert!(products(&fresh).await.is_empty());
}

async fn a_fingerprint_is_computed_once(f: &Fixture) {
    disk(f, "debian", "1.0", b"disk").await;
    let computed = Digest::of(b"metadatadisk");
    assert_eq!(f.texts("select fingerprint from incus_fingerprints").await, [computed.to_string()]);
    // What is there is not computed again: the next version of the same two has what the table says.
    let other = Digest::of(b"other");
    f.sql(&format!("update incus_fingerprints set fingerprint = '{other}'")).await.expect("another one");
    disk(f, "debian", "2.0", b"disk").await;
    let products = products(&f.engine).await;
    assert_eq!(products.len(), 2);
    let shown = products["debian:2.0:amd64:default"].to_string();
    assert!(shown.contains(other.hex()) && !shown.contains(computed.hex()), "{shown}");
}

async fn a_bad_row_takes_nothing_else_away(f: &Fixture) {
    let good = disk(f, "alpine", "3.22", b"one").await;
    for (number, spoil) in [
        ("1", "update artifacts set requirements = '5'"),
        ("2", "update artifacts set variant = '/'"),
        ("3", "update attachments set blob_digest = 'x'"),
        ("4", "update versions set version = '/'"),
    ] {
        let bad = f.draft_as("debian", number).await;
        for variant in ["default", "good"] {
            add(f, &bad, "qcow2", variant, b"metadata", format!("{variant} {number}").as_bytes()).await;
        }
        publish(f, &bad).await;
        let id = f.engine.get_manifest(&bad.0, &bad.1, Scope::All).await.expect("a manifest");
        f.unprotect().await;
        let of = match spoil.split(' ').nth(1) {
            Some("artifacts") => f.same("id", id.artifacts[0].artifact.id.0),
            Some("attachments") => f.same("id", id.artifacts[0].attachments[0].id.0),
            _ => f.same("id", id.version.id.0),
        };
        assert_eq!(f.sql(&format!("{spoil} where {of}")).await.expect(spoil), 1);
    }
    let last = disk(f, "debian", "5", b"disk 5").await;
    point(f, "latest", &last).await;
    let fresh = f.builder().build().await.expect("a node");
    let expected = ["alpine:3.22:amd64:default = alpine/3.22", "debian:5:amd64:default = debian/5,debian/latest"];
    assert_eq!(aliases(&fresh).await, expected);
    assert_eq!(left_out(&fresh, &good).await, [""]);
}

/// Counts how often it is rendered, and shows the names of all images.
#[derive(Clone, Default)]
struct Names(Arc<AtomicUsize>);

impl Projection for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn render(&self, catalog: &Catalog) -> Result<Vec<File>, BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let names = catalog.images.iter().map(|image| format!("{}\n", image.image.name).into());
        Ok(vec![File { path: "all.txt", media_type: "text/plain", body: names.collect() }])
    }
}

async fn those_who_ask_at_once_wait_for_one(f: &Fixture) {
    let names = Names::default();
    let node = f.builder().projection(names.clone()).build().await.expect("a node");
    for (n, name) in ["debian", "alpine"].into_iter().enumerate() {
        disk(f, name, "1", name.as_bytes()).await;
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let node = node.clone();
                tokio::spawn(
                    async move { node.projected("names", "all.txt").await.expect("an answer").expect("a file") },
                )
            })
            .collect();
        // Who stops waiting takes nothing away from the others.
        let impatient = node.clone();
        tokio::spawn(async move { impatient.projected("names", "all.txt").await }).abort();
        let expected: &[u8] = if n == 0 { b"debian\n" } else { b"alpine\ndebian\n" };
        for answer in asking {
            assert_eq!(answer.await.expect("no panic").body.concat(), expected);
        }
        assert_eq!(names.0.load(Ordering::SeqCst), n + 1);
    }
}

/// Fails, or panics.
struct Broken(&'static str);

impl Projection for Broken {
    fn name(&self) -> &'static str {
        self.0
    }

    fn render(&self, _: &Catalog) -> Result<Vec<File>, BoxError> {
        if self.0 == "panics" { panic!("at the disco") } else { Err("cannot".into()) }
    }

    fn left_out(&self, _: &Catalog, _: &Manifest) -> std::collections::BTreeMap<ArtifactId, String> {
        [].into()
    }
}

async fn a_projection_that_fails_fails_alone(f: &Fixture) {
    let node = f.builder().projection(Broken("fails")).projection(Broken("panics")).build().await.expect("a node");
    disk(f, "debian", "1", b"disk").await;
    for broken in ["fails", "panics"] {
        assert!(matches!(node.projected(broken, "all.txt").await, Err(Error::Internal { .. })), "{broken}");
    }
    assert_eq!(aliases(&node).await, ["debian:1:amd64:default = debian/1"]);
}

async fn names_of_projections_are_unique(f: &Fixture) {
    let twice = f.builder().projection(SimpleStreams::default()).build().await;
    let Err(Error::Invalid { what: "projections", reason }) = twice else { panic!("{twice:?}") };
    assert_eq!(reason, "two have the name streams");
}
