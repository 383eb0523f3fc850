//! SIGKILL at any moment: what was acknowledged is there afterwards, and what was not can be finished or given up.
//!
//! `IMGSRV_TEST_KILLS` says how often each deployment is killed, `IMGSRV_TEST_SEED` what is done and at which moments, as
//! far as a machine does the same twice; both are printed.

mod checker;
mod content;
mod damage;
mod deployment;
mod faults;
mod ledger;
mod life;
mod rows;
mod seldom;
mod settle;
mod walk;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use imgsrv_core::{Clock, Engine, Settings, Swept};

use self::checker::{Checker, Findings};
use self::deployment::Deployment;
use self::ledger::Shared;
use self::life::Life;
use self::walk::Walker;
use crate::server::{Server, to_listen};

/// How often each deployment is killed where nothing else is said.
const KILLS: u32 = 15;

/// After so many kills a server is given the time to finish what it has, and is checked.
const BETWEEN_CHECKS: u32 = 50;

on_both!(Deployment: killed_at_any_moment);

async fn killed_at_any_moment(deployment: Deployment) {
    let kills = variable("IMGSRV_TEST_KILLS").unwrap_or(KILLS.into()) as u32;
    let seed = variable("IMGSRV_TEST_SEED").or_else(|| variable("CRASH_SEED")).unwrap_or_else(|| fastrand::u64(..));
    let name = deployment.name();
    println!("{name}: {kills} kills, IMGSRV_TEST_SEED={seed}");
    let mut story = Story::begin(deployment, seed).await;
    while story.ledger.lock().kills < kills {
        story.kill().await;
        if story.ledger.lock().kills % BETWEEN_CHECKS == 0 {
            story.check().await;
        }
    }
    let (published, objects) = story.end().await;
    println!(
        "{name}: {kills} kills, IMGSRV_TEST_SEED={seed}: {published} versions were published, {objects} objects are left"
    );
    assert!(published > 0, "a loop that publishes nothing proves nothing");
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Many lives of one server.
struct Story {
    deployment: Deployment,
    ledger: Shared,
    random: fastrand::Rng,
    token: Option<String>,
    /// What a start takes.
    start: Duration,
    /// Digests of published bytes that were found right.
    known: BTreeSet<String>,
    begun: Instant,
}

impl Story {
    async fn begin(deployment: Deployment, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let begun = Instant::now();
        let mut story = Self {
            deployment,
            ledger: Shared::default(),
            random,
            token: None,
            start: Duration::ZERO,
            known: BTreeSet::new(),
            begun,
        };
        let server = story.serve(&[]);
        story.token = server.writer().await.token;
        server.stop();
        story
    }

    fn serve(&mut self, arguments: &[&str]) -> Server {
        let begun = Instant::now();
        let mut command = serving(&self.deployment);
        command.args(arguments);
        let server = Server::spawn(command, self.deployment.folder.clone());
        assert!(self.token.is_none() || server.token.is_none(), "the first token still manages the server");
        self.start = begun.elapsed();
        server
    }

    /// One kill more.
    async fn kill(&mut self) {
        match self.random.u32(..100) {
            0..10 => self.kill_the_first_start().await,
            10..25 => {
                let after = self.moment(self.start.mul_f32(1.5));
                let mut command = serving(&self.deployment);
                to_listen(&mut command);
                self.note("it starts", after);
                kill(command, after).await;
            }
            25..30 => {
                let after = self.moment(self.start * 4);
                let mut command = self.deployment.program();
                command.arg("sweep");
                self.note("it sweeps", after);
                kill(command, after).await;
            }
            _ => self.kill_at_work().await,
        }
        self.ledger.lock().kills += 1;
    }

    fn moment(&mut self, within: Duration) -> Duration {
        within.mul_f64(self.random.f64())
    }

    fn note(&self, what: &str, after: Duration) {
        let (kills, elapsed) = (self.ledger.lock().kills, self.begun.elapsed());
        println!("{elapsed:.1?}: kill {kills}, after {after:?}, while {what}");
    }

    /// A server that is killed while clients do what they can.
    async fn kill_at_work(&mut self) {
        // Now and then a session does not live long, and what is left of it is there to be swept.
        let (flag, ttl) = if self.random.u32(..8) == 0 {
            ("--upload-ttl=300ms", TimeDelta::milliseconds(300))
        } else {
            ("--upload-ttl=24h", TimeDelta::hours(24))
        };
        let server = self.serve(&[flag]);
        let life = Life::new(server.client(self.token.clone()), self.ledger.clone(), ttl);
        // So long the life of a server is: some answers, and then a moment.
        let (answers, after) = (self.random.u32(..120), self.moment(Duration::from_millis(15)));
        let walkers = ["one-", "two-"].map(|name| tokio::spawn(self.walker(&life, name).walk()));
        let trickling = tokio::spawn(self.walker(&life, "three-").trickle());
        let mut settler = self.walker(&life, "settler-");
        let settling = tokio::spawn(async move {
            if settler.settle().await.is_ok() {
                settler.look_back().await.ok();
            }
        });
        life.answers(answers).await;
        tokio::time::sleep(after).await;
        life.ends();
        server.kill();
        self.note(&format!("it works, behind {answers} answers"), after);
        for client in walkers.into_iter().chain([trickling, settling]) {
            client.await.expect("the clients end when their server is gone");
        }
    }

    fn walker(&mut self, life: &Life, name: &'static str) -> Walker {
        Walker::new(life, &mut self.random, name)
    }

    /// A start on nothing, where the schema is made, is killed; the next one finds its way, and a manager its way in.
    async fn kill_the_first_start(&mut self) {
        let (deployment, after) = (self.deployment.anew(), self.moment(self.start * 2));
        let mut command = serving(&deployment);
        to_listen(&mut command);
        self.note("it starts on nothing", after);
        kill(command, after).await;
        let server = Server::spawn(serving(&deployment), deployment.folder.clone());
        let token = server.token.clone().unwrap_or_else(|| another_token(&deployment));
        let writer = server.client(Some(token)).new_token("content-writer").await;
        server.client(Some(writer)).release("first", "1", b"bytes").await;
        server.stop();
    }

    /// A server that is not killed finishes what all others have left.
    async fn check(&mut self) {
        let server = self.serve(&[]);
        let life = Life::new(server.client(self.token.clone()), self.ledger.clone(), TimeDelta::hours(24));
        let mut settler = self.walker(&life, "settler-");
        settler.settle().await.expect("it lives");
        settler.look_back().await.expect("it lives");
        server.stop();
        let mut checker = Checker::look(&self.deployment).await;
        let mut findings = checker.check(&self.ledger, now(), &mut self.known).await;
        findings.extend(checker.check_idle(&self.ledger, now()));
        none(&findings);
    }

    /// The last look, at every byte; how many versions are published and how many objects are left when time has passed.
    async fn end(mut self) -> (usize, usize) {
        self.known.clear();
        self.check().await;
        if let Some(unfinished) = self.deployment.unfinished_multiparts() {
            println!("{unfinished} multipart uploads were left unfinished in the store");
        }
        println!("{}", self.ledger.lock().summary());
        let (swept, later) = let_time_pass(&self.deployment).await;
        println!("{swept:?}");
        let mut checker = Checker::look(&self.deployment).await;
        none(&checker.check_swept(later));
        // What is published was not swept away.
        none(&checker.check_published(&mut BTreeSet::new()).await);
        (checker.published_versions(), checker.objects())
    }
}

fn none(findings: &Findings) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// A server that comes back to its jobs soon.
fn serving(deployment: &Deployment) -> Command {
    let mut command = deployment.program();
    command.args(["--job-lease=500ms", "--cas-promotion-poll-interval=20ms"]);
    command
}

/// Runs a command and ends it as a crash would, if it has not ended by itself.
async fn kill(mut command: Command, after: Duration) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
    tokio::time::sleep(after).await;
    child.kill().expect("kill");
    child.wait().expect("its end");
}

fn another_token(deployment: &Deployment) -> String {
    let output = deployment.program().arg("bootstrap-token").output().expect("the program");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let token = said.trim().strip_prefix("imgsrv bootstrap token (one-time): ");
    token.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

/// Two sweeps, and the listing that is due each day, when every session is past its time: what they did, and when it is
/// then.
async fn let_time_pass(deployment: &Deployment) -> (Vec<Swept>, DateTime<Utc>) {
    let (database, clock) = (deployment.database().await, Clock::manual(now()));
    let engine = Engine::builder(database.clone(), deployment.store())
        .clock(clock.clone())
        .settings(Settings { min_free: 0, ..Settings::default() })
        .build()
        .await
        .expect("an engine");
    let mut swept = Vec::new();
    for _ in 0..2 {
        clock.advance(TimeDelta::days(2));
        swept.push(engine.sweep().await.expect("a sweep"));
        let ran = engine.run_until_idle().await.expect("jobs");
        assert!(ran.jobs > 0, "the listing is due");
    }
    drop(engine);
    database.close().await.expect("closed");
    (swept, clock.now())
}

#[expect(clippy::disallowed_methods, reason = "the program under test keeps the machine's time")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
