//! What tests need that feed the plugin with foreign input; nothing else does.

use crate::config::Config;
use crate::environment::{self, Lookup};
use crate::error::CniError;
use crate::result::CniResult;
use crate::{upkeep, wishes};

/// Reads what an invocation is given without carrying anything out. An error as the plugin prints it.
pub fn read(lookup: Lookup<'_>, input: &[u8]) -> Result<(), String> {
    understand(lookup, input).map_err(|error| error.to_json("1.1.0"))
}

fn understand(lookup: Lookup<'_>, input: &[u8]) -> Result<(), CniError> {
    let config = Config::parse(input)?;
    upkeep::known(input)?;
    let previous = CniResult::previous(&config)?.unwrap_or_default();
    let attachment = environment::attachment(lookup)?;
    let name = attachment.interface.as_str();
    let read = (previous.expected(name), previous.addresses(name));
    let again = again(&previous);
    assert_eq!((again.expected(name), again.addresses(name)), read, "a result reads as it was written");
    let routes = wishes::routes(&config)?;
    wishes::refuse_mac(&config, &attachment)?;
    wishes::address(&config, &attachment)?;
    again_of(&CniResult::of_addresses(&config, &[], &routes));
    config.require("1.1.0", "GC")
}

fn again_of(result: &CniResult) {
    drop(again(result));
}

fn again(result: &CniResult) -> CniResult {
    let json = result.to_json().expect("a result can be written");
    serde_json::from_str(&json).expect("a result can be read")
}
