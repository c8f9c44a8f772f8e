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

/// A word alone is a level: the library would take any other for the name of a module, and silence everything else.
#[doc(hidden)]
pub fn parse(filter: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let words = filter.split(',').map(str::trim).filter(|part| !part.contains(['=', '[']));
    for word in words {
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            return Err(format!("{word:?} is no level"));
        }
    }
    // Values of fields as text: as patterns they would be compiled, at a cost that doubles with every character.
    EnvFilter::builder().with_regex(false).parse(filter).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_are_told_from_typing_errors() {
        for filter in ["info", "DEBUG", "warn,meshwork_tunnel=trace", "off"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        assert!(parse(&format!("[span{{field=.*a{}}}]=info", ".".repeat(60))).is_ok(), "a value is no pattern");
        for filter in ["", "nonsense", "info,verbose", "meshwork_tunnel=loud", "="] {
            assert!(parse(filter).is_err(), "{filter:?}");
        }
    }
}
