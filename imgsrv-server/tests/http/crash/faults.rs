//! SIGKILL between each two effects: right before and right after every transaction and every call of the store that a
//! story passes. `IMGSRV_TEST_FAULTS=all` tries each of them, early and late, and not only some; names of sites, with commas
//! between them, those.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use chrono::{SecondsFormat, TimeDelta};
use futures_util::{StreamExt, stream};
use imgsrv_core::sea_orm::ConnectionTrait;
use imgsrv_core::testing::SITES;
use reqwest::Method;
use serde_json::{Value, json};

use super::checker::{Checker, Findings};
use super::content::Content;
use super::deployment::Deployment;
use super::ledger::Shared;
use super::life::{Cut, Life, Went};
use super::seldom::{Tale, delete_objects, put_in_its_place, rotten};
use super::walk::Walker;
use super::{Story, let_time_pass, none, now, serving, variable};
use crate::server::{Server, artifact, attachment, bytes, digest, id};

/// How many faults are tried where not all are: those of services take longer.
const SOME: [usize; 2] = [24, 6];

/// How many are tried at once.
const AT_ONCE: usize = 2;

/// Long ago, for both databases.
pub(super) const LONG_AGO: &str = "2020-01-01T00:00:00.000000+00:00";

/// An image of which the ledger knows nothing: what is done with it goes wrong on purpose.
pub(super) const SPARE: &str = "spare";

on_both!(Deployment: killed_between_two_effects);

/// What no store does that speaks S3.
const FOLDERS_ONLY: [&str; 2] = ["store.room", "store.sync"];

/// Where a process is told to kill itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    site: &'static str,
    nth: u32,
    moment: &'static str,
}

impl Fault {
    fn variable(self) -> String {
        format!("{}:{}:{}", self.site, self.nth, self.moment)
    }

    /// Each site at its first passing and at a later one if there is one, before it and after it.
    fn all(random: &mut fastrand::Rng) -> Vec<Self> {
        let mut faults = Vec::new();
        for site in SITES {
            // A story passes the store's more often than others.
            let later = if site.starts_with("store.") { random.u32(2..20) } else { random.u32(2..4) };
            let passings = if Tale::of(site).is_some() { vec![1] } else { vec![1, later] };
            for nth in passings {
                faults.extend(["before", "after"].map(|moment| Self { site, nth, moment }));
            }
        }
        faults
    }
}

async fn killed_between_two_effects(deployment: Deployment) {
    let seed = variable("IMGSRV_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut faults = Fault::all(&mut random);
    let which = std::env::var("IMGSRV_TEST_FAULTS").ok();
    match which.as_deref() {
        None => {
            random.shuffle(&mut faults);
            faults.truncate(SOME[usize::from(!deployment.is_embedded())]);
        }
        Some("all") => {}
        Some(sites) => faults.retain(|fault| sites.split(',').any(|site| site == fault.site)),
    }
    println!("{}: {} faults, IMGSRV_TEST_SEED={seed}", deployment.name(), faults.len());
    let story = Story::begin(deployment, seed).await;
    let tried: Vec<(Fault, bool, Findings)> = stream::iter(faults)
        .map(|fault| {
            let (deployment, token) = (story.deployment.clone(), story.token.clone());
            tokio::spawn(async move {
                let (reached, findings) = try_out(&deployment, token, fault).await;
                (fault, reached, findings)
            })
        })
        .buffer_unordered(AT_ONCE)
        .map(|tried| tried.expect("no panic"))
        .collect()
        .await;
    let sites = |reached| -> BTreeSet<&str> {
        tried.iter().filter(|tried| tried.1 == reached).map(|tried| tried.0.site).collect()
    };
    let killed = tried.iter().filter(|tried| tried.1).count();
    println!("{killed} of {} faults killed a process, at {} sites", tried.len(), sites(true).len());
    let never: Vec<&str> = sites(false).difference(&sites(true)).copied().collect();
    println!("never reached: {}", never.join(", "));
    none(&tried.iter().flat_map(|tried| tried.2.clone()).collect());
    assert!(killed > 0, "a story that passes none of {tried:?} proves nothing");
    let known = |site: &&str| !story.deployment.is_embedded() && FOLDERS_ONLY.contains(site);
    let never_tried = which.is_some() && !never.iter().all(known);
    assert!(!never_tried, "a site that is never reached is never tried: {never:?}");
}

pub(super) async fn sql(deployment: &Deployment, sql: &str) {
    let database = deployment.database().await;
    database.execute_unprepared(sql).await.expect(sql);
    database.close().await.expect("closed");
}

/// Tells the story to a server that kills itself somewhere, and then looks at what it has left: whether it did, and what is wrong.
async fn try_out(prepared: &Deployment, token: Option<String>, fault: Fault) -> (bool, Findings) {
    let (deployment, token) = match prepared.copy() {
        Some(copy) => (copy, token),
        None => {
            let story = Story::begin(prepared.anew(), 0).await;
            (story.deployment, story.token)
        }
    };
    // The daily listing is due.
    sql(&deployment, &format!("update jobs set available_at = '{LONG_AGO}' where kind = 'list-objects'")).await;
    let ledger = Shared::default();
    let mut command = serving(&deployment);
    command.env("IMGSRV_FAULT", fault.variable());
    let tale = Tale::of(fault.site);
    let mut was_killed = true;
    if let Ok(mut server) = Server::try_spawn(command, deployment.folder.clone()) {
        let life = Life::new(server.client(token.clone()), ledger.clone(), TimeDelta::hours(24));
        life.ends();
        let mut teller = Teller::new(&deployment, &life);
        let told = match tale {
            Some(tale) => teller.tell_of(tale).await,
            None => teller.tell().await,
        };
        assert_ne!(told, Err(Cut::Expired), "{fault:?}");
        was_killed = told.is_err();
        if was_killed {
            assert_eq!(server.ended().signal(), Some(9), "{fault:?}");
        } else {
            server.kill();
        }
    }
    if !was_killed {
        was_killed = match tale {
            Some(Tale::AndIsVerified) => {
                put_in_its_place(&deployment, &rotten()).await;
                kills_itself(&deployment, &["verify"], fault)
            }
            Some(Tale::AndIsScrubbed) => is_killed_scrubbing(&deployment, token.clone(), fault).await,
            _ => {
                make_due(&deployment, &ledger).await;
                kills_itself(&deployment, &["--blob-retention=1h", "sweep"], fault)
            }
        };
    }
    ledger.lock().kills += 1;

    let server = Server::spawn(serving(&deployment), deployment.folder.clone());
    let life = Life::new(server.client(token), ledger.clone(), TimeDelta::hours(24));
    let mut teller = Teller::new(&deployment, &life);
    teller.walker.settle().await.expect("it lives");
    match tale {
        Some(tale) => teller.repair_after(tale).await.expect("it lives"),
        None => teller.repair().await.expect("it lives"),
    }
    server.stop();
    let mut checker = Checker::look(&deployment).await;
    let mut findings = checker.check(&ledger, now(), &mut BTreeSet::new()).await;
    findings.extend(checker.check_idle(&ledger, now()));
    let (_, later) = let_time_pass(&deployment).await;
    let mut checker = Checker::look(&deployment).await;
    findings.extend(checker.check_swept(later));
    findings.extend(checker.check_published(&mut BTreeSet::new()).await);
    println!(
        "{}: {}, {} findings",
        fault.variable(),
        if was_killed { "killed" } else { "not reached" },
        findings.len()
    );
    (was_killed, findings.into_iter().map(|finding| format!("{}: {finding}", fault.variable())).collect())
}

/// Whether a command does that is told to.
fn kills_itself(deployment: &Deployment, arguments: &[&str], fault: Fault) -> bool {
    let mut command = deployment.program();
    command.args(arguments).env("IMGSRV_FAULT", fault.variable());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("the program").signal() == Some(9)
}

/// Whether a server is that reads what it has once more.
async fn is_killed_scrubbing(deployment: &Deployment, token: Option<String>, fault: Fault) -> bool {
    sql(deployment, &format!("update blobs set scrub_at = '{LONG_AGO}'")).await;
    let mut command = serving(deployment);
    command.arg("--scrub-rate=1GiB").env("IMGSRV_FAULT", fault.variable());
    let mut server = match Server::try_spawn(command, deployment.folder.clone()) {
        Ok(server) => server,
        Err(ended) => {
            assert!(ended.starts_with("signal: 9"), "{ended}");
            return true;
        }
    };
    let life = Life::new(server.client(token), Shared::default(), TimeDelta::hours(24));
    life.ends();
    let soon = (now() + TimeDelta::days(2)).to_rfc3339_opts(SecondsFormat::Micros, false);
    let due = format!("select count(*) from blobs where scrub_at < '{soon}'");
    let was_killed = Teller::new(deployment, &life).wait_until_none(&due).await.is_err();
    if was_killed {
        assert_eq!(server.ended().signal(), Some(9), "{fault:?}");
    } else {
        server.kill();
    }
    was_killed
}

/// Sessions are past their time, and a blob that nobody needs has had its week.
async fn make_due(deployment: &Deployment, ledger: &Shared) {
    sql(deployment, &format!("update uploads set expires_at = '{LONG_AGO}' where state in ('created', 'uploading')"))
        .await;
    for session in ledger.lock().sessions.values_mut() {
        session.expires_at = now();
    }
    let unneeded = digest(&unneeded());
    sql(deployment, &format!("update blobs set last_used_at = '{LONG_AGO}' where digest = '{unneeded}'")).await;
}

fn unneeded() -> Vec<u8> {
    bytes(7, 1000)
}

/// Bytes that are lost on purpose.
fn lost() -> Vec<u8> {
    bytes(8, 1000)
}

/// Who tells the story.
pub(super) struct Teller {
    pub(super) deployment: Deployment,
    walker: Walker,
}

impl Teller {
    fn new(deployment: &Deployment, life: &Life) -> Self {
        let walker = Walker::new(life, &mut fastrand::Rng::with_seed(1), "one-");
        Self { deployment: deployment.clone(), walker }
    }

    /// The same story each time: something of everything.
    async fn tell(&mut self) -> Went<()> {
        let walker = &mut self.walker;
        walker.take_image().await?;
        let two_parts = Content::of_two_parts(1);
        if let Some(session) = walker.begin(two_parts).await? {
            // In the wrong order, for a worker; and one twice, for the sweep.
            for (number, content) in [(2, two_parts), (1, two_parts.other()), (1, two_parts)] {
                walker.send_part(&session, number, content, false).await?;
            }
            walker.complete(&session).await?;
        }
        let first = walker.release_of(&[two_parts, Content::small(2)], Some(Content::small(3))).await?;
        let second = walker.release_of(&[Content::of_one_large_part(4)], Some(Content::small(3))).await?;
        for version in [&first, &second] {
            walker.point("latest", &version.1).await?;
        }
        walker.delete_alias_of("latest").await?;
        let draft = walker.new_version().await?;
        walker.add_artifact(&draft, "raw", two_parts).await?;
        walker.attach(&draft, Content::small(3)).await?;
        walker.delete_draft(&draft).await?;
        let given_up = Content::of_two_parts(5);
        if let Some(session) = walker.begin(given_up).await? {
            walker.send_part(&session, 2, given_up, false).await?;
            walker.abort(&session).await?;
        }
        let left = Content::of_two_parts(6);
        if let Some(session) = walker.begin(left).await? {
            walker.send_part(&session, 1, left, false).await?;
        }
        self.go_wrong().await
    }

    pub(super) fn life(&self) -> &Life {
        &self.walker.life
    }

    /// Delivers bytes of which the ledger knows nothing.
    pub(super) async fn deliver(&self, bytes: &[u8]) -> Went<()> {
        let promise = json!({"expected_digest": digest(bytes), "expected_size_bytes": bytes.len()});
        let begun = self.life().post("/v1/uploads", &promise, &[200, 201]).await?;
        if begun.status == 200 {
            return Ok(());
        }
        let path = format!("/v1/uploads/{}", id(&begun.json()));
        let part = self.part(&path, 1, bytes.to_vec(), 200).await?;
        let done = self.complete(&path, &[part], &[200]).await?;
        assert_eq!(done["state"], "ready", "{done}");
        Ok(())
    }

    /// A version whose bytes are lost before it is published, and everything that can be taken back.
    async fn go_wrong(&self) -> Went<()> {
        self.deliver(&unneeded()).await?;
        self.deliver(&lost()).await?;
        let versions = format!("/v1/images/{SPARE}/versions");
        self.life().post("/v1/images", &json!({"name": SPARE}), &[201]).await?;
        self.life().post(&versions, &json!({"version": "1"}), &[201]).await?;
        let artifacts = format!("{versions}/1/artifacts");
        let disk = artifact(&lost(), json!({"format": "raw"}));
        let added = id(&self.life().post(&artifacts, &disk, &[201]).await?.json());
        let metadata = attachment("incus.tar.xz", "application/x-xz", &lost());
        let attachments = format!("{artifacts}/{added}/attachments");
        let attached = id(&self.life().post(&attachments, &metadata, &[201]).await?.json());
        self.life().call(Method::DELETE, &format!("{attachments}/{attached}"), &[204]).await?;
        self.life().call(Method::DELETE, &format!("{artifacts}/{added}"), &[204]).await?;
        self.life().post(&artifacts, &disk, &[201]).await?;

        delete_objects(&self.deployment, &digest(&lost())).await;
        let job = id(&self.life().call(Method::POST, &format!("{versions}/1/publish"), &[202]).await?.json());
        let path = format!("/v1/publish-jobs/{job}");
        self.life().wait_for(&path, &["failed"]).await?;
        self.life().call(Method::POST, &format!("{path}/retry"), &[202]).await?;
        self.life().wait_for(&path, &["failed"]).await?;
        self.life().call(Method::POST, &format!("{path}/abandon"), &[200]).await?;
        self.life().call(Method::DELETE, &format!("{versions}/1"), &[204]).await?;
        self.life().call(Method::DELETE, &format!("/v1/images/{SPARE}"), &[204]).await?;
        self.deliver(&lost()).await
    }

    /// What an operator does about what went wrong.
    async fn repair(&self) -> Went<()> {
        self.give_up_spare().await?;
        self.deliver(&lost()).await
    }

    /// Deletes a version that cannot be published.
    pub(super) async fn give_up_spare(&self) -> Went<()> {
        let path = format!("/v1/images/{SPARE}/versions/1");
        let answer = self.life().call(Method::GET, &path, &[200, 404]).await?;
        if answer.status == 200 {
            let manifest: Value = answer.json();
            if manifest["version"]["state"] == "publishing" {
                let job = id(&self.life().call(Method::POST, &format!("{path}/publish"), &[202]).await?.json());
                let job = format!("/v1/publish-jobs/{job}");
                self.life().wait_for(&job, &["failed"]).await?;
                self.life().call(Method::POST, &format!("{job}/abandon"), &[200]).await?;
            }
            self.life().call(Method::DELETE, &path, &[204]).await?;
        }
        Ok(())
    }
}
