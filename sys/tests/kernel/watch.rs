use std::time::{Duration, Instant};

use meshwork_sys::netlink::{Changes, InterfaceAddress, Netlink, Scope, Watch, firewall_generation};
use meshwork_sys::nft;
use meshwork_sys::wake::Wake;

use crate::sandbox::Sandbox;

/// What has changed, once anything has.
fn next(watch: &mut Watch) -> Changes {
    let (wake, started) = (Wake::new().unwrap(), Instant::now());
    while started.elapsed() < Duration::from_secs(5) {
        watch.wait(&wake, Duration::from_millis(100)).unwrap();
        let changes = watch.changes().unwrap();
        if changes != Changes::default() {
            return changes;
        }
    }
    panic!("nothing was told");
}

#[test]
fn a_change_by_others_is_told_and_the_firewalls_with_its_generation() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let netns = sandbox.netns.try_clone().unwrap();
    netns
        .run(|| {
            let mut own = Netlink::connect().unwrap();
            let mut watch = Watch::start("ours", &own).unwrap();
            let address = InterfaceAddress { net: "10.9.0.1/24".parse().unwrap(), scope: Scope::Global, nodad: true };
            sandbox.netlink.add_address(left, &address).unwrap();
            let changes = next(&mut watch);
            assert!(changes.routing && changes.firewall.is_empty());

            own.replace_neighbour(left, "10.9.0.2".parse().unwrap(), [2; 6]).unwrap();
            sandbox.netlink.replace_neighbour(left, "10.9.0.3".parse().unwrap(), [2; 6]).unwrap();
            let changes = next(&mut watch);
            let left = i32::try_from(left).unwrap();
            assert_eq!(changes, Changes { neighbours: [left].into(), ..Changes::default() });

            nft::apply("add table inet theirs\n").unwrap();
            let before = firewall_generation().unwrap();
            nft::apply("add table inet ours\n").unwrap();
            assert_eq!(next(&mut watch).firewall, [before + 1]);
            assert_eq!(firewall_generation().unwrap(), before + 1);

            nft::apply("flush ruleset\n").unwrap();
            assert_eq!(next(&mut watch).firewall, [before + 2]);
        })
        .unwrap();
}
