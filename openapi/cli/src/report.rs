//! What is told while a command runs: bars on a terminal, lines elsewhere, or events for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use uuid::Uuid;

use crate::failure::Failure;

/// How often a program hears of progress, and how often a log does.
const EVENTS: Duration = Duration::from_secs(1);
const LINES: Duration = Duration::from_secs(10);

/// What has happened. The names and members are documented in `docs/commands.md`; programs rely on them.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    Progress {
        doing: &'a str,
        file: &'a str,
        bytes: u64,
        total_bytes: u64,
        bytes_per_second: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds_left: Option<u64>,
    },
    Retrying {
        message: &'a str,
        seconds: f64,
    },
    Hashed {
        file: &'a str,
        digest: &'a str,
        size_bytes: u64,
    },
    Known {
        file: &'a str,
        digest: &'a str,
    },
    Resuming {
        file: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        upload_id: Option<Uuid>,
        stored_bytes: u64,
    },
    Verifying {
        file: &'a str,
        upload_id: Uuid,
    },
    Uploaded {
        file: &'a str,
        digest: &'a str,
        upload_id: Uuid,
        sent_bytes: u64,
    },
    Added {
        file: &'a str,
        digest: &'a str,
        image: &'a str,
        version: &'a str,
    },
    Drafted {
        image: &'a str,
        version: &'a str,
    },
    Publishing {
        image: &'a str,
        version: &'a str,
        job_id: Uuid,
    },
    Published {
        image: &'a str,
        version: &'a str,
    },
    Alias {
        image: &'a str,
        alias: &'a str,
        version: &'a str,
    },
    AliasRemoved {
        image: &'a str,
        alias: &'a str,
    },
    LoggedIn {
        server: &'a str,
        file: &'a str,
    },
    Present {
        file: &'a str,
        digest: &'a str,
    },
    Downloaded {
        file: &'a str,
        digest: &'a str,
        size_bytes: u64,
    },
}

impl Event<'_> {
    fn line(&self) -> String {
        match self {
            Self::Progress { doing, file, bytes, total_bytes, bytes_per_second, seconds_left } => {
                let left =
                    seconds_left.map(|seconds| format!(", {} left", HumanDuration(Duration::from_secs(seconds))));
                format!(
                    "{doing} {file}: {} of {}, {}/s{}",
                    HumanBytes(*bytes),
                    HumanBytes(*total_bytes),
                    HumanBytes(*bytes_per_second),
                    left.unwrap_or_default()
                )
            }
            Self::Retrying { message, seconds } => format!("{message}; trying again in {seconds:.1} s"),
            Self::Hashed { file, digest, size_bytes } => format!("{file}: {}, {digest}", HumanBytes(*size_bytes)),
            Self::Known { file, .. } => format!("{file}: the server has it already"),
            Self::Resuming { file, stored_bytes, .. } => {
                format!("{file}: going on, {} are there already", HumanBytes(*stored_bytes))
            }
            Self::Verifying { file, .. } => format!("{file}: sent; the server is checking it"),
            Self::Uploaded { file, sent_bytes, .. } => format!("{file}: uploaded, {} sent", HumanBytes(*sent_bytes)),
            Self::Added { file, image, version, .. } => format!("{file}: in {image}:{version}"),
            Self::Drafted { image, version } => format!("{image}:{version} is a draft"),
            Self::Publishing { image, version, .. } => format!("{image}:{version} is being published"),
            Self::Published { image, version } => format!("{image}:{version} is published"),
            Self::Alias { image, alias, version } => format!("{image}:{alias} is {version} now"),
            Self::AliasRemoved { image, alias } => format!("{image}:{alias} is gone"),
            Self::LoggedIn { server, file } => format!("the token for {server} is kept in {file}"),
            Self::Present { file, .. } => format!("{file}: there already"),
            Self::Downloaded { file, size_bytes, .. } => format!("{file}: {}, as published", HumanBytes(*size_bytes)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Bars,
    Lines,
    Events,
}

/// Where it is told. Standard output gets events, or what was asked for; all else goes to standard error.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    mode: Mode,
    bars: MultiProgress,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        let mode = match json {
            true => Mode::Events,
            false if io::stderr().is_terminal() => Mode::Bars,
            false => Mode::Lines,
        };
        let target = if mode == Mode::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { mode, bars: MultiProgress::with_draw_target(target) }
    }

    /// Whether it is JSON that was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.mode == Mode::Events
    }

    pub(crate) fn say(&self, event: &Event<'_>) {
        match self.mode {
            Mode::Events => self.event(&serde_json::to_string(event).unwrap_or_default()),
            Mode::Lines => to_standard_error(event.line()),
            Mode::Bars => self.bars.suspend(|| to_standard_error(event.line())),
        }
    }

    pub(crate) fn retrying(&self, failure: &Failure, pause: Duration) {
        let message = failure.to_string();
        let message = message.trim_start_matches("error: ");
        self.say(&Event::Retrying { message, seconds: pause.as_secs_f64() });
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        match self.mode {
            Mode::Events => self.event(&failure.event().to_string()),
            Mode::Lines | Mode::Bars => to_standard_error(failure),
        }
    }

    /// A reader that has gone is no reason to leave a release half done.
    #[expect(clippy::unused_self, reason = "only a report of events has any")]
    fn event(&self, event: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{event}").and_then(|()| out.flush());
    }

    /// Something that takes its time, byte by byte.
    pub(crate) fn task(&self, doing: &'static str, file: &str, total: u64) -> Task {
        let bar = self.bars.add(ProgressBar::new(total));
        let template = "{msg} {prefix} {wide_bar} {binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(file.to_owned());
        bar.set_message(doing);
        let said = Mutex::new(Instant::now());
        Task(Arc::new(Shared {
            report: self.clone(),
            doing,
            file: file.to_owned(),
            bar,
            said,
            moved: AtomicU64::new(0),
        }))
    }
}

/// `eprintln!` would panic where nobody reads any more.
fn to_standard_error(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Something that takes its time.
#[derive(Clone, Debug)]
pub(crate) struct Task(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    report: Report,
    doing: &'static str,
    file: String,
    bar: ProgressBar,
    said: Mutex<Instant>,
    moved: AtomicU64,
}

impl Task {
    /// So many bytes more.
    pub(crate) fn advance(&self, bytes: u64) {
        let Shared { report, doing, file, bar, said, moved } = &*self.0;
        moved.fetch_add(bytes, Ordering::Relaxed);
        bar.inc(bytes);
        let interval = match report.mode {
            Mode::Bars => return,
            Mode::Lines => LINES,
            Mode::Events => EVENTS,
        };
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() < interval {
            return;
        }
        *said = Instant::now();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative")]
        let bytes_per_second = bar.per_sec() as u64;
        report.say(&Event::Progress {
            doing,
            file,
            bytes: bar.position(),
            total_bytes: bar.length().unwrap_or_default(),
            bytes_per_second,
            seconds_left: (bytes_per_second > 0).then(|| bar.eta().as_secs()),
        });
    }

    /// So many bytes have to be moved again.
    pub(crate) fn retreat(&self, bytes: u64) {
        self.0.bar.dec(bytes);
    }

    /// So many bytes need not be moved.
    pub(crate) fn begin_at(&self, bytes: u64) {
        self.0.bar.set_position(bytes);
        self.0.bar.reset_eta();
    }

    /// How many bytes have been moved, those included that were moved again.
    pub(crate) fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
