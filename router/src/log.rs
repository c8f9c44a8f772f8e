//! The log: to standard error, with a filter that can be changed while the daemon runs.

use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Handle of the filter in force.
#[derive(Clone)]
pub struct LogFilter(Arc<reload::Handle<EnvFilter, Registry>>);

impl LogFilter {
    /// Starts the log. Once per process.
    ///
    /// # Errors
    /// Says what is wrong with the filter.
    pub fn start(filter: &str) -> Result<Self, String> {
        let (filter, handle) = reload::Layer::new(parse(filter)?);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        tracing_subscriber::registry().with(filter).with(lines).init();
        Ok(Self(Arc::new(handle)))
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// Says what is wrong with the filter; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        self.0.reload(parse(filter)?).map_err(|error| error.to_string())
    }
}

/// Longest filter in bytes: one that names every module of ours has a fifth of it, and each part costs in the square.
const LONGEST_FILTER: usize = 4096;

/// Levels, and modules with theirs. A word alone is a level: the library would take any other for the name of a module, and
/// silence everything else. It would also take names of spans and values of their fields, which it compiles as patterns at a
/// cost that doubles with every character.
#[doc(hidden)]
pub fn parse(filter: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    if filter.len() > LONGEST_FILTER {
        return Err(format!("a filter has at most {LONGEST_FILTER} bytes"));
    }
    let parts: Vec<&str> = filter.split(',').map(str::trim).collect();
    for part in &parts {
        if part.contains(['[', '{']) {
            return Err(format!("{part:?} is neither a level nor module=level"));
        }
        if !part.contains('=') && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part)) {
            return Err(format!("{part:?} is no level"));
        }
    }
    // Without blanks: the library counts places in the part that it trimmed, and cuts the one that it did not.
    EnvFilter::try_new(parts.join(",")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_are_told_from_typing_errors() {
        for filter in ["info", "DEBUG", "warn,meshwork_tunnel=trace", "off"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        assert!(parse(&format!("[span{{field=.*a{}}}]=info", ".".repeat(60))).is_err());
        assert!(parse(&"m=info,".repeat(1000)).is_err());
        assert!(parse(" ae_t\u{23e}[=trace").is_err());
        assert_eq!(
            parse("warn, meshwork_tunnel=trace ").map(|filter| filter.to_string()),
            parse("warn,meshwork_tunnel=trace").map(|filter| filter.to_string())
        );
        for filter in ["", "nonsense", "info,verbose", "meshwork_tunnel=loud", "="] {
            assert!(parse(filter).is_err(), "{filter:?}");
        }
    }
}
