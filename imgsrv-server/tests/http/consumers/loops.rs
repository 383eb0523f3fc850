//! Consumers while a publisher goes on: an index never names what cannot be fetched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::Value;

use super::daemon::Incus;
use super::files::Image;
use super::site::Site;
use crate::server::digest;

on_both!(Site: what_an_index_names_can_be_fetched);

const ROUNDS: u32 = 4;
const VERSIONS: u32 = 5;

/// How often each consumer came round, and whether the publisher has ended.
#[derive(Default)]
struct Progress {
    rounds: [AtomicU32; 3],
    ended: AtomicBool,
}

impl Progress {
    fn is_enough(&self) -> bool {
        self.rounds.iter().all(|rounds| rounds.load(Ordering::Relaxed) >= ROUNDS)
    }

    /// One more round, the last of which begins when the publisher has ended.
    fn goes_on(&self, consumer: usize, mut round: impl FnMut()) {
        let mut last = false;
        while !std::mem::replace(&mut last, self.ended.load(Ordering::Relaxed)) {
            round();
            self.rounds[consumer].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ends the consumers when the publisher ends, in whatever way.
struct Publisher(Arc<Progress>);

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

async fn what_an_index_names_can_be_fetched(site: Site) {
    let (site, progress) = (Arc::new(site), Arc::new(Progress::default()));
    publish(&site, 1).await;
    let publisher = Publisher(Arc::clone(&progress));
    let consumer = |consume: fn(&Site, &Progress)| {
        let (site, progress) = (Arc::clone(&site), Arc::clone(&progress));
        tokio::task::spawn_blocking(move || consume(&site, &progress))
    };
    let consumers = [consumer(copy_images), consumer(download_files), consumer(follow_the_index)];
    let mut version = 1;
    while version < VERSIONS || !progress.is_enough() {
        assert!(!consumers.iter().any(|consumer| consumer.is_finished()), "one has given up; it has said why");
        version += 1;
        publish(&site, version).await;
    }
    drop(publisher);
    for consumer in consumers {
        consumer.await.expect("what was named could be fetched");
    }
}

fn copy_images(site: &Site, progress: &Progress) {
    let incus = Incus::start(site);
    progress.goes_on(0, || {
        incus.an_hour_later();
        incus.run(&["image", "copy", "imgsrv:box/latest", "local:"]);
        incus.run(&["image", "copy", "imgsrv:machine/latest", "local:", "--vm"]);
    });
    let copied = incus.images("local:").len();
    assert!(copied > 2, "the first version or a later one, and the last");
}

/// The alias may move at any time, so it is asked once; the rest comes from the version that it meant.
fn download_files(site: &Site, progress: &Progress) {
    let script = r#"
        rm -rf latest && mkdir latest && cd latest
        version=$(curl -fsS --output list --write-out '%header{x-imgsrv-version}' "$0/d/box/latest/")
        curl -fsS --remote-name "$0/d/box/$version/SHA256SUMS"
        for file in $(cut -c67- SHA256SUMS); do
            curl -fsS --remote-name "$0/d/box/$version/$file"
        done
        sha256sum -c --quiet SHA256SUMS
    "#;
    progress.goes_on(1, || drop(site.run(&["sh", "-euc", script, &site.url])));
}

fn follow_the_index(site: &Site, progress: &Progress) {
    let runtime = tokio::runtime::Handle::current();
    progress.goes_on(2, || runtime.block_on(check_index(site)));
}

/// A version of each image, with `latest` at it.
async fn publish(site: &Site, version: u32) {
    let name = version.to_string();
    for (image, made) in [("box", Image::squashfs(&name)), ("machine", Image::disk(&name, 1))] {
        site.release(image, &name, &[&made]).await;
        site.point(image, "latest", &name).await;
    }
}

/// Fetches all that an index names.
async fn check_index(site: &Site) {
    let index = site.reader.get("/streams/v1/index.json").await.ok();
    let entry = &index["index"]["images"];
    let named: Vec<_> = entry["products"].as_array().expect("products").iter().map(|name| name.as_str()).collect();
    let path = format!("/{}", entry["path"].as_str().expect("a path"));
    let products = site.reader.get(&path).await.ok();
    let products = products["products"].as_object().expect("products").clone();
    for name in named {
        let name = name.expect("a name");
        assert!(products.contains_key(name), "{name} is in index.json and not in images.json");
    }
    for (name, product) in &products {
        let items = product["versions"].as_object().expect("versions").values();
        let items = items.flat_map(|version| version["items"].as_object().expect("items").values());
        for item in items.collect::<Vec<&Value>>() {
            let path = format!("/{}", item["path"].as_str().expect("a path"));
            let file = site.reader.get(&path).await;
            assert_eq!(file.status.as_u16(), 200, "{name}: {path}");
            let expected = (item["size"].as_u64(), item["sha256"].as_str().map(|hash| format!("sha256:{hash}")));
            assert_eq!((Some(file.body.len() as u64), Some(digest(&file.body))), expected, "{name}: {path}");
        }
    }
}
