//! The configuration: flags, and a variable `IMGSRV_…` for each.

mod postgres;
mod s3;
mod tls;
mod value;

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono::TimeDelta;
use clap::{ArgAction, Args, ValueEnum};
use imgsrv_core::Settings;
use imgsrv_server::Limits;

#[cfg(feature = "postgres")]
pub(crate) use self::postgres::ACQUIRE_TIMEOUT;
pub(crate) use self::postgres::PostgresSettings;
#[cfg(feature = "s3")]
pub(crate) use s3::Checksum;
pub(crate) use s3::S3;
pub(crate) use tls::TlsFiles;
pub(crate) use value::Listen;
use value::{duration, positive_duration, size};

use crate::telemetry::Verbosity;

/// Flags and variables whose feature is yet to come: refused when set, because to ignore one would look like obeying it.
pub(crate) const NOT_YET: &[(&str, &str)] = &[
    ("metrics-listen", "IMGSRV_METRICS_LISTEN"),
    ("metrics-path", "IMGSRV_METRICS_PATH"),
    ("oidc-allow-loopback-http", "IMGSRV_OIDC_ALLOW_LOOPBACK_HTTP"),
];

/// What can be configured. Every flag works before and behind the subcommand.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Config {
    /// Address to serve HTTP on; without a host, on every address
    #[arg(long, global = true, env = "IMGSRV_LISTEN", value_name = "[HOST]:PORT", default_value = ":8080")]
    pub(crate) listen: Listen,

    #[command(flatten)]
    tls: tls::TlsFlags,

    /// Name of this node in the log of its start [default: the host name]
    #[arg(long, global = true, env = "IMGSRV_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,

    /// How long transfers may take to finish when the server is told to stop
    #[arg(long, global = true, env = "IMGSRV_SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) shutdown_timeout: Duration,

    /// Form of the logs on standard error
    #[arg(long, global = true, env = "IMGSRV_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// What to log: a level, or directives as in `info,imgsrv_core=debug`
    #[arg(long, global = true, env = "IMGSRV_VERBOSITY", value_name = "LEVEL", default_value = "info")]
    pub(crate) verbosity: Verbosity,

    /// Folder for everything that is not kept elsewhere
    #[arg(long, global = true, env = "IMGSRV_DATA_DIR", value_name = "DIR", default_value = "./imgsrv-data")]
    pub(crate) data_dir: PathBuf,

    /// PostgreSQL database; without it, SQLite in the data folder
    #[arg(long, global = true, env = "IMGSRV_POSTGRES_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) postgres_url: Option<PostgresUrl>,

    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,

    #[command(flatten)]
    s3: s3::S3Flags,

    /// How long an upload session lives without a part
    #[arg(long, global = true, env = "IMGSRV_UPLOAD_TTL", value_name = "DURATION", default_value = "24h", value_parser = positive_duration)]
    upload_ttl: Duration,

    /// How long a blob is kept that no version cites, after it was last used
    #[arg(long, global = true, env = "IMGSRV_BLOB_RETENTION", value_name = "DURATION", default_value = "168h", value_parser = positive_duration)]
    blob_retention: Duration,

    /// How much to read again each second, to find what a disk has spoilt; 0 is nothing
    #[arg(long, global = true, env = "IMGSRV_SCRUB_RATE", value_name = "SIZE", default_value = "0", value_parser = size)]
    scrub_rate: u64,

    /// Whether this node works in the background
    #[arg(
        long, global = true, env = "IMGSRV_CAS_PROMOTION_ENABLED", value_name = "BOOL", default_value = "true",
        value_parser = boolean, action = ArgAction::Set
    )]
    cas_promotion_enabled: bool,

    /// How often to look for work that nobody announced
    #[arg(long, global = true, env = "IMGSRV_CAS_PROMOTION_POLL_INTERVAL", value_name = "DURATION", default_value = "1s", value_parser = positive_duration)]
    cas_promotion_poll_interval: Duration,

    /// How long to wait before the first retry of a job that failed
    #[arg(long, global = true, env = "IMGSRV_CAS_PROMOTION_ERROR_BACKOFF", value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    cas_promotion_error_backoff: Duration,

    /// How long to wait at most before a retry
    #[arg(long, global = true, env = "IMGSRV_CAS_PROMOTION_ERROR_BACKOFF_MAX", value_name = "DURATION", default_value = "1m", value_parser = positive_duration)]
    cas_promotion_error_backoff_max: Duration,

    /// Jobs that this node works on at once; 0 is none
    #[arg(long, global = true, env = "IMGSRV_WORKERS", value_name = "NUMBER", default_value = "2", value_parser = number)]
    workers: usize,

    /// How long a job stays with a worker that gives no sign of life
    #[arg(long, global = true, env = "IMGSRV_JOB_LEASE", value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    job_lease: Duration,

    /// Memory that all transfers together may use for buffers
    #[arg(long, global = true, env = "IMGSRV_TRANSFER_MEMORY", value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    transfer_memory: u64,

    /// Parts that are received at once
    #[arg(long, global = true, env = "IMGSRV_MAX_UPLOADS", value_name = "NUMBER", default_value_t = Limits::default().uploads, value_parser = positive_number)]
    max_uploads: usize,

    /// Downloads that are sent at once
    #[arg(long, global = true, env = "IMGSRV_MAX_DOWNLOADS", value_name = "NUMBER", default_value_t = Limits::default().downloads, value_parser = positive_number)]
    max_downloads: usize,

    /// Space on the disk that uploads leave free
    #[arg(long, global = true, env = "IMGSRV_MIN_FREE", value_name = "SIZE", default_value = "512MiB", value_parser = size)]
    min_free: u64,
}

impl Config {
    pub(crate) fn node_name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node_name.clone().unwrap_or_else(host)
    }

    /// The flag that keeps this node from working in the background, if one does.
    pub(crate) fn idle_by(&self) -> Option<&'static str> {
        if !self.cas_promotion_enabled {
            Some("--cas-promotion-enabled")
        } else if self.workers == 0 {
            Some("--workers")
        } else {
            None
        }
    }

    /// The store that speaks S3, if there is one; else the line that says what is missing of it.
    pub(crate) fn s3(&self) -> Result<Option<S3>, String> {
        self.s3.store()
    }

    /// The certificate and its key, if TLS is to be spoken; else the line that says which of them is missing.
    pub(crate) fn tls(&self) -> Result<Option<TlsFiles>, String> {
        self.tls.files()
    }

    /// How many transfers there may be at once.
    pub(crate) fn limits(&self) -> Limits {
        Limits { uploads: self.max_uploads, downloads: self.max_downloads }
    }

    /// What the engine needs to know, or the line that says why it cannot be.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        if self.cas_promotion_error_backoff_max < self.cas_promotion_error_backoff {
            return Err("--cas-promotion-error-backoff-max: less than --cas-promotion-error-backoff".to_owned());
        }
        Ok(Settings {
            upload_ttl: delta("upload-ttl", self.upload_ttl)?,
            blob_retention: delta("blob-retention", self.blob_retention)?,
            scrub_rate: NonZeroU64::new(self.scrub_rate),
            transfer_memory: self.transfer_memory,
            min_free: self.min_free,
            statement_limit: self.postgres_url.as_ref().and_then(|_| self.postgres.statement_limit()),
            workers: self.workers,
            lease: delta("job-lease", self.job_lease)?,
            poll_interval: self.cas_promotion_poll_interval,
            retry_delay: delta("cas-promotion-error-backoff", self.cas_promotion_error_backoff)?,
            retry_delay_max: delta("cas-promotion-error-backoff-max", self.cas_promotion_error_backoff_max)?,
            // The other half is for giving the leases back.
            stop_grace: self.shutdown_timeout / 2,
        })
    }
}

/// The form of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The URL of a PostgreSQL database. It may hold a password, so nothing prints it.
#[derive(Clone)]
pub(crate) struct PostgresUrl(
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only to say that it is of no use"))] String,
);

impl PostgresUrl {
    #[cfg(feature = "postgres")]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for PostgresUrl {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("must be a URL as in postgres://user:password@host:5432/database");
        }
        #[cfg(feature = "postgres")]
        if crate::connect::postgres_options(url).is_none() {
            return Err("not a usable URL; mind that special characters in a password are percent-encoded, and that \
                        sslmode is one of disable, allow, prefer, require, verify-ca, verify-full");
        }
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresUrl(…)")
    }
}

fn number(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "must be a number")
}

fn positive_number(text: &str) -> Result<usize, &'static str> {
    number(text).ok().filter(|number| *number > 0).ok_or("must be a number, and more than nothing")
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false"),
    }
}

fn delta(flag: &str, duration: Duration) -> Result<TimeDelta, String> {
    // A century is more than anybody means, and far from where adding to a date overflows.
    const LONGEST: TimeDelta = TimeDelta::days(36_500);
    TimeDelta::from_std(duration).ok().filter(|delta| *delta <= LONGEST).ok_or_else(|| format!("--{flag}: too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_fits_a_calendar() {
        assert!(delta("x", Duration::from_hours(24)).is_ok());
        assert!(delta("x", Duration::from_secs(u64::MAX)).is_err());
    }

    #[test]
    fn urls_of_databases() {
        for url in ["postgres://u:p@h/d", "postgresql://h:5432/d?sslmode=verify-full", "postgres:///d?host=/run"] {
            assert!(url.parse::<PostgresUrl>().is_ok(), "{url}");
        }
        for url in ["", "host=h dbname=d", "mysql://h/d", "sqlite:x"] {
            assert!(url.parse::<PostgresUrl>().is_err(), "{url}");
        }
        assert_eq!(format!("{:?}", "postgres://u:secret@h/d".parse::<PostgresUrl>().unwrap()), "PostgresUrl(…)");
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn unusable_parameters_of_a_database() {
        for url in ["postgres://h/d?sslmode=maybe", "postgres://u:p@h:port/d", "postgres://h/d?port=x"] {
            assert!(url.parse::<PostgresUrl>().is_err(), "{url}");
        }
    }
}
