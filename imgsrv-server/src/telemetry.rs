//! Logs, on standard error.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

/// What to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verbosity(String);

impl Verbosity {
    fn filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl FromStr for Verbosity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be off, error, warn, info, debug, trace, or directives as in info,imgsrv_core=debug";
        let directives = match text.parse::<LevelFilter>() {
            // A number is a level to tracing, and a surprise to everybody else.
            Ok(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => return Err(RULE),
            // The level is ours: of what is below us nobody wants to read more than that it goes wrong.
            Ok(level) if level > LevelFilter::WARN => format!("warn,imgsrv={level}"),
            Ok(level) => level.to_string(),
            // A word alone is the name of a module to tracing, but a misspelled level to whoever wrote it.
            Err(_) if !text.contains('=') => return Err(RULE),
            Err(_) => text.to_owned(),
        };
        EnvFilter::try_new(&directives).map(|_| Self(directives)).map_err(|_| RULE)
    }
}

impl fmt::Display for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Starts to log. Only the first call in a process does anything.
pub(crate) fn start(format: LogFormat, verbosity: &Verbosity) {
    let logs = tracing_subscriber::fmt()
        .with_env_filter(verbosity.filter())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Whoever has set a subscriber already keeps it.
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_of_our_own_logs() {
        for (text, directives) in [
            ("off", "off"),
            ("error", "error"),
            ("warn", "warn"),
            ("info", "warn,imgsrv=info"),
            ("DEBUG", "warn,imgsrv=debug"),
            ("trace", "warn,imgsrv=trace"),
        ] {
            assert_eq!(text.parse::<Verbosity>().unwrap().to_string(), directives);
        }
    }

    #[test]
    fn directives_are_kept() {
        for text in ["imgsrv_core=trace", "info,hyper=debug", "warn,imgsrv[request]=debug"] {
            assert_eq!(text.parse::<Verbosity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_misspelled_level_is_refused() {
        for text in ["", "inof", "verbose", "3", "info,debgu", "imgsrv=loud"] {
            assert!(text.parse::<Verbosity>().is_err(), "{text}");
        }
    }
}
