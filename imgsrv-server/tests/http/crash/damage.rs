//! The checker itself: it finds nothing where nothing is wrong, and names what somebody has broken.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use imgsrv_core::opendal::Operator;
use imgsrv_core::sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use super::checker::Checker;
use super::content::Content;
use super::deployment::Deployment;
use super::ledger::{Name, Shared};
use super::life::Life;
use super::walk::Walker;
use super::{Story, now};

on_both!(Deployment: what_is_broken_is_named);

/// What there is before somebody breaks it.
struct Whole {
    deployment: Deployment,
    ledger: Shared,
    database: DatabaseConnection,
    store: Operator,
    /// Versions and their one artifact's bytes.
    versions: Vec<(Name, Content)>,
    /// A session that has a part and is open.
    session: String,
    /// A draft that was deleted.
    deleted: Name,
}

async fn whole(deployment: Deployment) -> Whole {
    let mut story = Story::begin(deployment, 1).await;
    let server = story.serve(&[]);
    let life = Life::new(server.client(story.token.clone()), story.ledger.clone(), TimeDelta::hours(24));
    let mut walker = Walker::new(&life, &mut story.random, "one-");
    walker.take_image().await.expect("an image");
    let mut versions = Vec::new();
    for seed in 0..5 {
        let content = if seed == 0 { Content::of_two_parts(seed) } else { Content::small(seed) };
        versions.push((walker.release_of(&[content], None).await.expect("a version"), content));
    }
    walker.point("latest", &versions[0].0.1).await.expect("an alias");
    let content = Content::of_two_parts(5);
    let session = walker.begin(content).await.expect("an answer").expect("a session");
    walker.send_part(&session, 1, content, false).await.expect("a part");
    let deleted = walker.new_version().await.expect("a draft");
    walker.delete_draft(&deleted).await.expect("an answer");
    server.stop();
    let Story { deployment, ledger, .. } = story;
    let (database, store) = (deployment.database().await, deployment.store());
    Whole { deployment, ledger, database, store, versions, session, deleted }
}

impl Whole {
    async fn sql(&self, sql: &str) {
        let done = self.database.execute_unprepared(sql).await.expect(sql);
        assert!(done.rows_affected() > 0 || !sql.starts_with("update"), "{sql}");
    }

    async fn ask(&self, sql: &str) -> String {
        let statement = Statement::from_string(self.database.get_database_backend(), sql);
        let row = self.database.query_one_raw(statement).await.expect(sql).expect("a row");
        row.try_get_by_index(0).expect("a text")
    }

    /// The last object of a version's bytes.
    async fn object(&self, version: usize) -> String {
        let digest = self.versions[version].1.digest();
        self.ask(&format!("select key from blob_segments where digest = '{digest}' order by start desc limit 1")).await
    }

    /// What is found now that begins like this.
    async fn found(&self, beginning: &str) -> Vec<String> {
        let mut checker = Checker::look(&self.deployment).await;
        let mut findings = checker.check(&self.ledger, now(), &mut BTreeSet::new()).await;
        findings.extend(checker.check_idle(&self.ledger, now()));
        findings.extend(checker.check_swept(now()));
        findings.retain(|finding| finding.starts_with(beginning));
        findings
    }

    async fn names(&self, beginning: &str) {
        let found = self.found(beginning).await;
        assert!(!found.is_empty(), "{beginning} … is not among {:#?}", self.found("").await);
    }
}

async fn what_is_broken_is_named(deployment: Deployment) {
    let whole = whole(deployment).await;
    let session = &whole.session;
    // What time has not swept away yet is all that is found.
    let rest = whole.found("").await;
    let open = format!("session {session}: is uploading, past its time");
    assert!(rest.len() == 2 && rest.contains(&open), "{rest:#?}");
    assert!(rest.iter().any(|finding| finding.ends_with("is stored, and no blob needs it")), "{rest:#?}");

    let digest = |version: usize| whole.versions[version].1.digest();
    let object = whole.object(0).await;
    whole.store.write(&object, vec![0; 999]).await.expect("written");
    whole.names(&format!("blob {}: its object {object} has 999 bytes, not 1000", digest(0))).await;

    let object = whole.object(1).await;
    let mut bytes = whole.store.read(&object).await.expect("an object").to_vec();
    *bytes.last_mut().expect("a byte") ^= 1;
    whole.store.write(&object, bytes).await.expect("written");
    whole.names(&format!("blob {}: its bytes hash to sha256:", digest(1))).await;

    let object = whole.object(2).await;
    whole.store.delete(&object).await.expect("deleted");
    whole.names(&format!("blob {}: its object {object} is gone", digest(2))).await;
    whole.names(&format!("object {object}: is gone, its row is stored")).await;

    let rowless = "blobs/sha256/00/of-nobody";
    whole.store.write(rowless, "bytes").await.expect("written");
    whole.names(&format!("object {rowless}: has no row")).await;

    let ((image, target), _) = &whole.versions[4];
    let other = format!("(select id from versions where version = '{target}')");
    whole.sql(&format!("update aliases set version_id = {other}")).await;
    whole.names(&format!("alias {image}/latest: points at Some(\"{target}\")")).await;

    let key = whole.object(4).await;
    whole.sql(&format!("update part_attempts set state = 'writing' where key = '{key}'")).await;
    whole.names(&format!("object {key}: is being written, its session is Some(\"ready\")")).await;
    whole.names(&format!("blob {}: its object {key} is writing", digest(4))).await;

    let part =
        whole.ask("select key from parts where number = 1 and size = 5242880 order by stored_at desc limit 1").await;
    let size = i64::try_from(super::content::PART).expect("a size");
    whole.store.write(&part, vec![0; super::content::PART]).await.expect("written");
    whole.names(&format!("part 1 of session {session}: its bytes hash to sha256:")).await;
    whole.sql(&format!("update parts set etag = 'other' where key = '{part}' and size = {size}")).await;
    whole.names(&format!("session {session}: part 1 was acknowledged")).await;

    whole.sql("update uploads set state = 'completed' where state = 'uploading'").await;
    whole.names(&format!("session {session}: is completed (None)")).await;
    whole.names(&format!("session {session}: is completed, and has an open job: false")).await;
    whole.names(&format!("session {session}: hangs, it is completed")).await;

    let ((image, name), _) = &whole.versions[3];
    whole
        .sql(match whole.database.get_database_backend() {
            DbBackend::Postgres => "alter table versions disable trigger user",
            _ => "drop trigger versions_update_published",
        })
        .await;
    let change =
        |state: &str| format!("update versions set state = '{state}', published_at = null where version = '{name}'");
    whole.sql(&change("draft")).await;
    whole.names(&format!("version {image}/{name}: is Some(\"draft\")")).await;
    whole.sql(&change("publishing")).await;
    whole.names(&format!("version {image}/{name}: is publishing, and has an open job: false")).await;
    whole.names(&format!("version {image}/{name}: hangs, it is publishing")).await;
    let due = "update jobs set outcome = null, finished_at = null, available_at = created_at - interval '1 minute'";
    let due = match whole.database.get_database_backend() {
        DbBackend::Postgres => due,
        _ => "update jobs set outcome = null, finished_at = null, available_at = '2020-01-01T00:00:00.000000+00:00'",
    };
    let id = format!("(select id from versions where version = '{name}')");
    let subject = match whole.database.get_database_backend() {
        DbBackend::Postgres => format!("{id}::text"),
        // A UUID is a blob here, and the subject its text.
        _ => format!(
            "(select lower(substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-' || \
             substr(h, 17, 4) || '-' || substr(h, 21)) from (select hex({id}) as h))"
        ),
    };
    whole.sql(&format!("{due} where subject = {subject}")).await;
    let hangs = whole.found("job ").await;
    assert!(hangs.len() == 1 && hangs[0].contains(": publish of ") && hangs[0].contains(" hangs, "), "{hangs:?}");

    let (image, name) = &whole.deleted;
    let uuid = match whole.database.get_database_backend() {
        DbBackend::Postgres => "gen_random_uuid()",
        _ => "randomblob(16)",
    };
    whole
        .sql(&format!(
            "insert into versions select {uuid}, image_id, '{name}', 'draft', null, created_at, updated_at \
             from versions where version = '{target}'"
        ))
        .await;
    whole.names(&format!("version {image}/{name}: is Some(\"draft\")")).await;
}
