//! `meshctl status`: blocks of right-aligned labels, in the order that people know.

use std::collections::BTreeMap;

use meshwork_api::model::Status;
use serde::Serialize;

use super::{Width, list, peer, word};
use crate::units::{age, plain};

/// Width that labels are aligned to.
const LABEL_WIDTH: usize = 15;

/// Everything about this node in one screen.
pub(crate) fn status(answer: &Status, width: Width) -> String {
    let mut text = Lines::default();
    text.line("Version", format!("{} (up {})", answer.version, age(answer.uptime_s)));
    text.line("Health", health(answer));
    for reason in &answer.reasons {
        text.line("", format!("- {reason}"));
    }
    router(&mut text, answer, width);
    ipam(&mut text, answer);
    dns(&mut text, answer);
    text.0
}

fn router(text: &mut Lines, answer: &Status, width: Width) {
    text.service("router");
    text.line("Name", peer(width, &answer.peer.id, &answer.peer.nickname));
    text.line("Cluster", &answer.cluster);
    text.line("Encryption", &answer.encryption);
    text.line("PeerDiscovery", if answer.discovery { "enabled" } else { "disabled" });
    text.line("Listen", answer.listen.to_string());
    text.line("Overlay", list(&answer.overlay));
    text.line("Exposed", if answer.exposed { "yes" } else { "no" });
    text.line("MTU", answer.mtu.to_string());
    text.line("Targets", counted(answer.targets.len(), &list(&answer.targets)));
    text.line("Connections", states(&answer.connections));
    text.line("Peers", states(&answer.peers));
    if width == Width::Wide || answer.clear_blocked_packets > 0 {
        text.line("ClearBlocked", format!("{} packets", answer.clear_blocked_packets));
    }
    let drops = answer.drops.iter().filter(|(_, count)| **count > 0);
    let drops: Vec<String> = drops.map(|(reason, count)| format!("{count} {reason}")).collect();
    if !drops.is_empty() {
        text.line("Drops", drops.join(", "));
    }
}

fn ipam(text: &mut Lines, answer: &Status) {
    text.service("ipam");
    let ipam = &answer.ipam;
    text.line(
        "Status",
        if ipam.reason.is_empty() { word(&ipam.state) } else { format!("{} ({})", word(&ipam.state), ipam.reason) },
    );
    text.line("Range", list(&ipam.range));
    text.line("Addresses", format!("{} owned, {} active", ipam.owned, ipam.allocated));
}

fn dns(text: &mut Lines, answer: &Status) {
    if !answer.dns.listen.is_empty() {
        text.service("dns");
        text.line("Listen", list(&answer.dns.listen));
    }
}

fn health(answer: &Status) -> &'static str {
    match (answer.healthy, answer.ready) {
        (true, _) => "healthy",
        (false, true) => "unhealthy, ready",
        (false, false) => "unhealthy, not ready",
    }
}

/// `3 (2 established, 1 retrying)`
fn states<S: Serialize + Ord>(counts: &BTreeMap<S, usize>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {}", word(state)))
        .collect();
    counted(counts.values().fold(0_usize, |sum, count| sum.saturating_add(*count)), &parts.join(", "))
}

fn counted(count: usize, parts: &str) -> String {
    if parts.is_empty() { count.to_string() } else { format!("{count} ({parts})") }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, label: &str, value: impl AsRef<str>) {
        let label = if label.is_empty() { String::new() } else { format!("{label}:") };
        let line = format!("{label:>width$} {}", plain(value.as_ref()), width = LABEL_WIDTH + 1);
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    fn service(&mut self, name: &str) {
        self.0.push('\n');
        self.line("Service", name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn a_healthy_node_fits_a_screen() {
        insta::assert_snapshot!(status(&samples::status(), Width::Normal));
    }

    #[test]
    fn an_unhealthy_node_says_why() {
        let mut answer = samples::status();
        answer.healthy = false;
        answer.ready = false;
        answer.reasons = vec!["no ring: waiting for h2".to_owned(), "vxlan port 6784 is taken".to_owned()];
        answer.drops.insert("bad_secret".to_owned(), 7);
        answer.drops.insert("replay".to_owned(), 0);
        answer.clear_blocked_packets = 2;
        insta::assert_snapshot!(status(&answer, Width::Wide));
    }
}
