//! The database as it is, read without the engine.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use imgsrv_core::sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult, Statement, TryGetable};
use uuid::Uuid;

/// What the checker needs of each table.
pub(super) struct Rows {
    pub(super) versions: BTreeMap<Uuid, VersionRow>,
    pub(super) artifacts: Vec<ArtifactRow>,
    pub(super) attachments: Vec<AttachmentRow>,
    pub(super) aliases: Vec<AliasRow>,
    pub(super) uploads: BTreeMap<Uuid, UploadRow>,
    pub(super) parts: Vec<PartRow>,
    /// By key.
    pub(super) attempts: BTreeMap<String, AttemptRow>,
    /// By digest.
    pub(super) blobs: BTreeMap<String, BlobRow>,
    /// Of each digest, in order.
    pub(super) segments: BTreeMap<String, Vec<SegmentRow>>,
    pub(super) jobs: Vec<JobRow>,
    pub(super) steps: Vec<StepRow>,
    /// How often each version was published, by its id.
    pub(super) published: BTreeMap<String, u64>,
}

pub(super) struct VersionRow {
    pub(super) image: String,
    pub(super) name: String,
    pub(super) state: String,
}

pub(super) struct ArtifactRow {
    pub(super) id: Uuid,
    pub(super) version: Uuid,
    pub(super) format: String,
    pub(super) digest: String,
    pub(super) size: i64,
}

pub(super) struct AttachmentRow {
    pub(super) artifact: Uuid,
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) size: i64,
}

pub(super) struct AliasRow {
    pub(super) image: String,
    pub(super) name: String,
    pub(super) version: Uuid,
}

pub(super) struct UploadRow {
    pub(super) digest: String,
    pub(super) size: i64,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) expires_at: DateTime<Utc>,
}

pub(super) struct PartRow {
    pub(super) upload: Uuid,
    pub(super) number: i32,
    pub(super) key: String,
    pub(super) size: i64,
    pub(super) etag: String,
}

pub(super) struct AttemptRow {
    pub(super) upload: Uuid,
    pub(super) state: String,
    pub(super) deletable_at: Option<DateTime<Utc>>,
}

pub(super) struct BlobRow {
    pub(super) size: i64,
    pub(super) state: String,
}

pub(super) struct SegmentRow {
    pub(super) start: i64,
    pub(super) size: i64,
    pub(super) key: String,
}

pub(super) struct JobRow {
    pub(super) id: Uuid,
    pub(super) kind: String,
    pub(super) subject: String,
    pub(super) available_at: DateTime<Utc>,
    pub(super) lease: Option<Uuid>,
    pub(super) outcome: Option<String>,
}

pub(super) struct StepRow {
    pub(super) job: Uuid,
    pub(super) name: String,
    pub(super) state: String,
}

impl Rows {
    pub(super) async fn read(database: &DatabaseConnection) -> Self {
        let mut segments = BTreeMap::<String, Vec<SegmentRow>>::new();
        let sql = "select digest, start, size, key from blob_segments order by digest, start";
        for row in query(database, sql).await {
            let segment = SegmentRow { start: at(&row, 1), size: at(&row, 2), key: at(&row, 3) };
            segments.entry(at(&row, 0)).or_default().push(segment);
        }
        let mut published = BTreeMap::new();
        for row in query(database, "select subject_id from events where what = 'published'").await {
            *published.entry(at(&row, 0)).or_default() += 1;
        }
        Self {
            versions: read(
                database,
                "select v.id, i.name, v.version, v.state from versions v join images i on i.id = v.image_id",
                |row| (at(row, 0), VersionRow { image: at(row, 1), name: at(row, 2), state: at(row, 3) }),
            )
            .await,
            artifacts: read(database, "select id, version_id, format, blob_digest, blob_size from artifacts", |row| {
                let (digest, size) = (at(row, 3), at(row, 4));
                ArtifactRow { id: at(row, 0), version: at(row, 1), format: at(row, 2), digest, size }
            })
            .await,
            attachments: read(database, "select artifact_id, name, blob_digest, blob_size from attachments", |row| {
                AttachmentRow { artifact: at(row, 0), name: at(row, 1), digest: at(row, 2), size: at(row, 3) }
            })
            .await,
            aliases: read(
                database,
                "select i.name, a.alias, a.version_id from aliases a join images i on i.id = a.image_id",
                |row| AliasRow { image: at(row, 0), name: at(row, 1), version: at(row, 2) },
            )
            .await,
            uploads: read(
                database,
                "select id, expected_digest, expected_size, state, failure_reason, expires_at from uploads",
                |row| {
                    let (state, reason) = (at(row, 3), at(row, 4));
                    let upload =
                        UploadRow { digest: at(row, 1), size: at(row, 2), state, reason, expires_at: at(row, 5) };
                    (at(row, 0), upload)
                },
            )
            .await,
            parts: read(database, "select upload_id, number, key, size, etag from parts", |row| {
                let (key, size, etag) = (at(row, 2), at(row, 3), at(row, 4));
                PartRow { upload: at(row, 0), number: at(row, 1), key, size, etag }
            })
            .await,
            attempts: read(database, "select key, upload_id, state, deletable_at from part_attempts", |row| {
                (at(row, 0), AttemptRow { upload: at(row, 1), state: at(row, 2), deletable_at: at(row, 3) })
            })
            .await,
            blobs: read(database, "select digest, size, state from blobs", |row| {
                (at(row, 0), BlobRow { size: at(row, 1), state: at(row, 2) })
            })
            .await,
            segments,
            jobs: read(database, "select id, kind, subject, available_at, lease, outcome from jobs", |row| {
                let (available_at, lease, outcome) = (at(row, 3), at(row, 4), at(row, 5));
                JobRow { id: at(row, 0), kind: at(row, 1), subject: at(row, 2), available_at, lease, outcome }
            })
            .await,
            steps: read(database, "select job_id, name, state from publish_steps", |row| StepRow {
                job: at(row, 0),
                name: at(row, 1),
                state: at(row, 2),
            })
            .await,
            published,
        }
    }
}

async fn read<T, C: FromIterator<T>>(database: &DatabaseConnection, sql: &str, row: impl Fn(&QueryResult) -> T) -> C {
    query(database, sql).await.iter().map(row).collect()
}

async fn query(database: &DatabaseConnection, sql: &str) -> Vec<QueryResult> {
    let statement = Statement::from_string(database.get_database_backend(), sql);
    database.query_all_raw(statement).await.expect(sql)
}

fn at<T: TryGetable>(row: &QueryResult, index: usize) -> T {
    row.try_get_by_index(index).expect("a column")
}
