use meshwork_sys::netlink::firewall_counters;
use meshwork_sys::{Error, nft};

use crate::sandbox::Sandbox;

const TABLE: &str = "
table inet mwt {
    counter seen { }
    chain output {
        type filter hook output priority 0; policy accept;
        ip daddr 127.0.0.1 counter name seen
    }
}
";

#[test]
fn a_table_is_applied_counts_and_goes() {
    let sandbox = Sandbox::new();
    sandbox.netns.run(|| nft::apply(TABLE)).unwrap().unwrap();
    assert!(sandbox.run("nft -j list table inet mwt").contains("\"seen\""));
    assert_eq!(sandbox.netns.run(|| firewall_counters("mwt")).unwrap().unwrap()["seen"], 0);
    sandbox.run("ping -c 2 -i 0.01 127.0.0.1");
    // Two requests and two answers.
    assert_eq!(sandbox.netns.run(|| firewall_counters("mwt")).unwrap().unwrap()["seen"], 4);

    let listing = sandbox.netns.run(|| nft::list_table("inet", "mwt")).unwrap().unwrap().unwrap();
    assert!(listing.contains("counter name \"seen\""), "{listing}");
    for _ in 0..2 {
        sandbox.netns.run(|| nft::delete_table("inet", "mwt")).unwrap().unwrap();
    }
    assert_eq!(sandbox.netns.run(|| nft::list_table("inet", "mwt")).unwrap().unwrap(), None);
}

#[test]
fn a_script_with_one_fault_changes_nothing_and_the_complaint_is_handed_on() {
    let sandbox = Sandbox::new();
    let script = format!("{TABLE}\nadd rule inet mwt nowhere accept\n");
    let refusal = sandbox.netns.run(|| nft::apply(&script)).unwrap().unwrap_err();
    let Error::NftRefused { stderr, .. } = &refusal else { panic!("{refusal}") };
    assert!(stderr.contains("nowhere"), "{stderr}");
    assert_eq!(sandbox.run("nft list ruleset"), "");
}

#[test]
fn a_counter_that_is_absent_is_not_found() {
    let sandbox = Sandbox::new();
    let refusal = sandbox.netns.run(|| firewall_counters("mwt")).unwrap().unwrap_err();
    assert!(refusal.is_not_found(), "{refusal}");
}

#[test]
fn a_script_longer_than_any_pipe_is_taken_whole() {
    let sandbox = Sandbox::new();
    let script = format!("{}{TABLE}", "# A comment that nft has to read before the table.\n".repeat(40_000));
    sandbox.netns.run(|| nft::apply(&script)).unwrap().unwrap();
    assert!(sandbox.netns.run(|| nft::list_table("inet", "mwt")).unwrap().unwrap().is_some());
}
