//! How PostgreSQL is used.

use std::time::Duration;

use clap::Args;

use super::duration;

/// How long a request waits for a connection of the pool, or for PostgreSQL to be there again, before it is refused.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the answer to a statement that took too long may take on its way.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// What can be set about a PostgreSQL database beside where it is.
#[derive(Args, Clone, Debug)]
pub(crate) struct PostgresSettings {
    /// Connections to PostgreSQL that this node has at most
    #[arg(
        long = "postgres-connections", global = true, env = "IMGSRV_POSTGRES_CONNECTIONS", value_name = "NUMBER",
        default_value = "20", value_parser = connections
    )]
    pub(crate) connections: u32,

    /// How long PostgreSQL may work on one statement; 0s is without limit
    #[arg(
        long = "postgres-statement-timeout", global = true, env = "IMGSRV_POSTGRES_STATEMENT_TIMEOUT",
        value_name = "DURATION", default_value = "30s", value_parser = statement_timeout
    )]
    pub(crate) statement_timeout: Duration,

    /// How long to wait at the start for PostgreSQL to answer; 0s is one try
    #[arg(
        long = "postgres-connect-timeout", global = true, env = "IMGSRV_POSTGRES_CONNECT_TIMEOUT",
        value_name = "DURATION", default_value = "30s", value_parser = duration
    )]
    pub(crate) connect_timeout: Duration,
}

impl PostgresSettings {
    /// When a statement has had no answer for so long, PostgreSQL cannot be there any more: it would have ended it.
    pub(super) fn statement_limit(&self) -> Option<Duration> {
        (!self.statement_timeout.is_zero()).then(|| ACQUIRE_TIMEOUT + self.statement_timeout + ON_THE_WAY)
    }
}

fn connections(text: &str) -> Result<u32, &'static str> {
    // The pool reserves room for each of them. PostgreSQL itself takes a hundred, unless told otherwise.
    text.parse().ok().filter(|number| (1..=10_000).contains(number)).ok_or("must be a number from 1 to 10000")
}

fn statement_timeout(text: &str) -> Result<Duration, &'static str> {
    // PostgreSQL keeps it in milliseconds, in 31 bits.
    duration(text).and_then(|timeout| match i32::try_from(timeout.as_millis()) {
        Ok(_) => Ok(timeout),
        Err(_) => Err("too long; 0s is without limit"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_connections() {
        for (text, number) in [("1", 1), ("20", 20), ("10000", 10_000)] {
            assert_eq!(connections(text), Ok(number));
        }
        for text in ["", "0", "-1", "10001", "99999999999", "many", "1.5"] {
            assert!(connections(text).is_err(), "{text}");
        }
    }

    #[test]
    fn timeouts_of_statements() {
        assert_eq!(statement_timeout("0s"), Ok(Duration::ZERO));
        assert_eq!(statement_timeout("2147483647ms"), Ok(Duration::from_millis(2_147_483_647)));
        for text in ["2147483648ms", "600h", "30"] {
            assert!(statement_timeout(text).is_err(), "{text}");
        }
    }
}
