//! `meshlab ls`: what runs, by name.

use meshwork_api::model::{Leases, Status};
use meshwork_lab::{Host, Lab, Result, remains, say};

/// Prints every lab with its hosts and pods. Hosts whose daemon does not answer are listed with the reason.
pub(crate) fn print() -> Result<()> {
    for name in remains::labs()? {
        say!("lab {name}");
        match Lab::open(name.as_str()) {
            Ok(lab) => lab.hosts().iter().try_for_each(print_host)?,
            Err(error) => say!("  incomplete ({error}); take it away with: meshlab down --name {name}"),
        }
    }
    Ok(())
}

fn print_host(host: &Host) -> Result<()> {
    let daemon = match host.get::<Status>("/v1/status") {
        Ok(status) if status.ready => "ready".to_owned(),
        Ok(status) => format!("not ready: {}", status.reasons.join(", ")),
        Err(error) => error.to_string(),
    };
    let [address4, address6] = host.underlay();
    say!("  {}  {address4}  {address6}  {daemon}", host.number());
    let leases = host.get::<Leases>("/v1/pods").map(|answer| answer.leases).unwrap_or_default();
    for pod in host.pod_names()? {
        let sandbox = host.sandbox(&pod).id;
        let lease = leases.iter().find(|lease| lease.sandbox == sandbox);
        let addresses = lease.map(|lease| lease.addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        say!("    {pod}  {}", addresses.map_or_else(|| "not attached".into(), |addresses| addresses.join("  ")));
    }
    Ok(())
}
