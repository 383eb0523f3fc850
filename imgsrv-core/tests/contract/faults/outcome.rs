//! What is there in the end, without what differs from run to run: ids, attempts and times.

use crate::fixture::Fixture;

/// What the tables say, and the objects that there are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    rows: Vec<(&'static str, Vec<String>)>,
    objects: Vec<String>,
}

const QUESTIONS: &[(&str, &str)] = &[
    ("images", "select name from images"),
    (
        "versions",
        "select i.name || '/' || v.version || ' ' || v.state from versions v join images i on i.id = v.image_id",
    ),
    (
        "artifacts",
        "select v.version || ' ' || a.variant || ' ' || a.operating_system || ' ' || a.architecture || ' ' || a.format \
         || ' ' || a.blob_digest || ' ' || a.blob_size || ' ' || a.media_type \
         from artifacts a join versions v on v.id = a.version_id",
    ),
    (
        "attachments",
        "select a.blob_digest || ' ' || t.name || ' ' || t.blob_digest || ' ' || t.blob_size || ' ' || t.media_type \
         from attachments t join artifacts a on a.id = t.artifact_id",
    ),
    ("aliases", "select a.alias || ' ' || v.version from aliases a join versions v on v.id = a.version_id"),
    ("blobs", "select digest || ' ' || size || ' ' || state from blobs"),
    (
        "segments",
        "select s.digest || ' ' || s.start || ' ' || s.size || ' ' || length(a.checksums) \
         from blob_segments s join part_attempts a on a.key = s.key",
    ),
    // A request that was repeated may have begun another session, which then came to nothing.
    ("sessions", "select distinct expected_digest || ' ' || state from uploads where state <> 'aborted'"),
    (
        "parts",
        "select u.expected_digest || ' ' || p.number || ' ' || p.etag from parts p join uploads u on u.id = p.upload_id \
               where u.state = 'ready' and p.key in (select key from blob_segments)",
    ),
    ("jobs", "select kind || ' ' || outcome from jobs where finished_at is not null and kind in ('publish', 'ingest')"),
    ("open jobs", "select kind from jobs where finished_at is null"),
    ("steps", "select name || ' ' || state from publish_steps"),
    (
        "events",
        "select subject || ' ' || coalesce(subject_name, '') || ' ' || what || ' ' || coalesce(from_value, '') || ' ' \
         || coalesce(to_value, '') from events \
         where subject in ('image', 'version', 'artifact', 'attachment', 'alias', 'job')",
    ),
    ("fingerprints", "select fingerprint from incus_fingerprints"),
    // Nothing waits for ever.
    ("open sessions", "select state from uploads where state not in ('ready', 'failed', 'aborted')"),
    ("attempts", "select state from part_attempts where key not in (select key from blob_segments)"),
];

impl Outcome {
    pub(crate) async fn of(f: &Fixture) -> Self {
        let mut rows = Vec::new();
        for (what, sql) in QUESTIONS {
            let mut lines = f.texts(sql).await;
            lines.sort();
            rows.push((*what, lines));
        }
        let mut objects: Vec<_> = f.objects().await.iter().map(|key| without_ids(key)).collect();
        objects.sort();
        Self { rows, objects }
    }
}

/// `<digest>/<upload>.<number>.<attempt>` without upload and attempt.
fn without_ids(key: &str) -> String {
    let (folder, name) = key.rsplit_once('/').expect("a key");
    let number = name.split('.').nth(1).unwrap_or("?");
    format!("{folder}/{number}")
}
