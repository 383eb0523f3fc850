//! A plan of what goes wrong, and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Error, Result};

/// Where something can go wrong: each transaction by its name, each call of the store.
pub const SITES: &[&str] = &[
    "abandon_job",
    "abort_upload",
    "add_artifact",
    "add_attachment",
    "begin_ingest",
    "begin_upload",
    "blob_checked",
    "catalog",
    "checked",
    "claim",
    "collect_blob",
    "complete_upload",
    "conclude_upload",
    "create_image",
    "create_version",
    "delete_alias",
    "delete_draft",
    "delete_image",
    "drop_attempt",
    "expire_upload",
    "fail_ingest",
    "fail_publish",
    "finalize_publish",
    "forget_attempts",
    "give_back",
    "hold_upload",
    "incus_fingerprint",
    "job",
    "keep_plan",
    "listed",
    "manifest",
    "mark_damaged",
    "name_store",
    "next_step",
    "open_attempt",
    "prune",
    "publish_version",
    "put_alias",
    "quarantine_blob",
    "queue_check",
    "remove_artifact",
    "remove_attachment",
    "renew",
    "repair_blob",
    "retry_job",
    "schedule_listing",
    "scrubbed",
    "step_failed",
    "store.abort",
    "store.close",
    "store.delete",
    "store.list",
    "store.open",
    "store.read",
    "store.room",
    "store.size",
    "store.sync",
    "store.write",
    "store_part",
    "take_to_scrub",
];

/// What goes wrong at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error, and nothing has happened.
    Before,
    /// An error, though it has happened: the answer is lost.
    After,
    /// Nothing, but late.
    Delay,
    /// From here on every site fails before its effect, until [`FaultPlan::heal`].
    Away,
    /// The process is killed before it happens.
    KillBefore,
    /// The process is killed when it has just happened.
    KillAfter,
}

/// Long enough for everything else that is under way to pass by.
const DELAY: Duration = Duration::from_millis(15);

/// Makes one thing go wrong, at the `nth` passing of a site, and counts the passings of all. Clones share one plan.
#[derive(Clone, Debug)]
pub struct FaultPlan(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    planned: Option<(&'static str, u32, Fault)>,
    away: bool,
    fired: bool,
    passed: BTreeMap<&'static str, u32>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// `fault` happens at the `nth` passing of `site`, counted from 1.
    pub fn new(site: &'static str, nth: u32, fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State { planned: Some((site, nth, fault)), ..State::default() })))
    }

    /// The plan that `IMGSRV_FAULT` names, as `<site>:<nth>:<before|after>`: the process kills itself there. So a test
    /// can kill a server between any two effects.
    ///
    /// # Panics
    /// When it names no plan.
    pub fn from_env() -> Option<Self> {
        let text = std::env::var_os("IMGSRV_FAULT")?;
        let plan = text.to_str().and_then(parse);
        Some(plan.expect("IMGSRV_FAULT is <site>:<nth>:<before|after>"))
    }

    /// From here on nothing goes wrong any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.planned = None;
        state.away = false;
    }

    /// Whether it has gone wrong.
    pub fn has_fired(&self) -> bool {
        self.state().fired
    }

    /// How often each site was passed.
    pub fn passed(&self) -> BTreeMap<&'static str, u32> {
        self.state().passed.clone()
    }

    /// Right before something happens at a site; what shall go wrong when it has happened.
    pub(crate) async fn pass(&self, site: &'static str) -> Result<Option<Planned>> {
        match self.count(site) {
            None => Ok(None),
            Some(Fault::Before | Fault::Away) => Err(failure(site, "nothing happened")),
            Some(Fault::KillBefore) => kill(),
            Some(Fault::Delay) => {
                tokio::time::sleep(DELAY).await;
                Ok(None)
            }
            Some(fault @ (Fault::After | Fault::KillAfter)) => Ok(Some(Planned { site, fault })),
        }
    }

    fn count(&self, site: &'static str) -> Option<Fault> {
        let mut state = self.state();
        let passed = state.passed.entry(site).or_default();
        *passed += 1;
        let now = (site, *passed);
        if let Some((_, _, fault)) = state.planned.take_if(|(site, nth, _)| (*site, *nth) == now) {
            state.fired = true;
            state.away = fault == Fault::Away;
            return Some(fault);
        }
        state.away.then_some(Fault::Away)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What shall go wrong when something has happened.
#[derive(Debug)]
pub(crate) struct Planned {
    site: &'static str,
    fault: Fault,
}

impl Planned {
    pub(crate) fn happen(self) -> Result<()> {
        match self.fault {
            Fault::KillAfter => kill(),
            _ => Err(failure(self.site, "the answer is lost")),
        }
    }
}

fn failure(site: &str, what: &str) -> Error {
    let away = if site.starts_with("store.") { "store" } else { "database" };
    Error::Unavailable { what: away, source: format!("as planned at {site}: {what}").into() }
}

fn parse(text: &str) -> Option<FaultPlan> {
    let mut words = text.split(':');
    let (site, nth, moment) = (words.next()?, words.next()?, words.next()?);
    let site = SITES.iter().find(|known| **known == site)?;
    let fault = match moment {
        "before" => Fault::KillBefore,
        "after" => Fault::KillAfter,
        _ => return None,
    };
    (words.next().is_none()).then_some(FaultPlan::new(site, nth.parse().ok()?, fault))
}

/// As a crash does it: without a word.
fn kill() -> ! {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
    loop {
        std::thread::park();
    }
}
