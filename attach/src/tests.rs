use std::sync::atomic::Ordering;

use meshwork_api::client::{Client, ClientError};
use meshwork_api::model::PodIdentity;
use meshwork_sys::netlink::{Netlink, Veth};
use meshwork_sys::netns::NetNs;
use meshwork_sys::sysctl;
use serde_json::json;

use crate::attachment::{Step, attach_watched};
use crate::fake_meshd::{NODE, Scene};
use crate::{AttachError, AttachRequest, Attachment, DetachRequest, Expected, attach, check, detach};

fn request(scene: &Scene) -> AttachRequest {
    AttachRequest {
        sandbox: "sandbox-1".to_owned(),
        interface: "eth0".to_owned(),
        netns: scene.netns(),
        pod: PodIdentity::default(),
        mtu: None,
        address: None,
        routes: Vec::new(),
        network: Some("mesh".to_owned()),
        masquerade: true,
    }
}

fn client(scene: &Scene) -> Client {
    Client::new(scene.socket())
}

fn attach_in(scene: &Scene) -> Result<Attachment, AttachError> {
    scene.host.run(|| attach(&client(scene), &request(scene))).unwrap()
}

fn detach_in(scene: &Scene) -> Result<(), AttachError> {
    let request = DetachRequest {
        sandbox: "sandbox-1".to_owned(),
        interface: Some("eth0".to_owned()),
        netns: Some(scene.netns()),
    };
    scene.host.run(|| detach(&client(scene), &request)).unwrap()
}

fn check_in(scene: &Scene) -> Result<bool, AttachError> {
    scene.host.run(|| check(&client(scene), "sandbox-1", "eth0", &scene.netns(), &Expected::default())).unwrap()
}

#[test]
fn the_first_packet_passes_when_attach_returns() {
    let scene = Scene::new("ready");
    let attachment = attach_in(&scene).unwrap();
    for address in NODE {
        assert!(scene.pings(address), "{address}");
    }
    assert!(attachment.lease.routed);
    assert_eq!(attachment.addresses, attachment.lease.addresses);
    assert_eq!(attachment.remarks, Vec::<String>::new());
}

#[test]
fn a_link_with_an_mtu_of_its_own_is_told_with_it() {
    let scene = Scene::new("mtu");
    let request = AttachRequest { mtu: Some(1300), ..request(&scene) };
    let attachment = scene.host.run(|| attach(&client(&scene), &request)).unwrap().unwrap();
    assert_eq!(Scene::ip(&scene.pod_name, "link show dev eth0")[0]["mtu"], 1300);
    assert_eq!(attachment.lease.mtu, 1300);
}

#[test]
fn ip_sees_addresses_routes_neighbours_and_mtu() {
    let scene = Scene::new("seen");
    let attachment = attach_in(&scene).unwrap();
    let link = &Scene::ip(&scene.pod_name, "address show dev eth0")[0];
    assert_eq!((link["mtu"].as_u64(), link["operstate"].as_str()), (Some(1400), Some("UP")));
    assert_eq!(link["address"], attachment.pod_mac.to_string());
    let addresses = link["addr_info"].as_array().unwrap();
    for (local, prefix) in [("10.32.0.5", 32), ("fd4d:6573:6877::5", 128)] {
        let address = addresses.iter().find(|address| address["local"] == local).unwrap();
        assert_eq!((address["prefixlen"].as_u64(), address["tentative"].as_bool()), (Some(prefix), None), "{local}");
    }
    let default = &Scene::ip(&scene.pod_name, "route show default")[0];
    assert_eq!((&default["gateway"], &default["dev"]), (&json!("169.254.1.1"), &json!("eth0")));
    assert_eq!(Scene::ip(&scene.pod_name, "route show 169.254.1.1")[0]["scope"], "link");
    assert_eq!(Scene::ip(&scene.pod_name, "-6 route show default")[0]["gateway"], "fe80::1");
    let neighbours = Scene::ip(&scene.pod_name, "neighbour show nud permanent");
    for gateway in ["169.254.1.1", "fe80::1"] {
        let neighbour = neighbours.as_array().unwrap().iter().find(|entry| entry["dst"] == gateway).unwrap();
        assert_eq!(neighbour["lladdr"], attachment.host_mac.to_string());
    }
    assert_eq!(Scene::links(&scene.host_name), [attachment.lease.host_interface]);
}

#[test]
fn a_repetition_returns_the_same_link() {
    let scene = Scene::new("repeat");
    let first = attach_in(&scene).unwrap();
    let link = Scene::ip(&scene.pod_name, "link show dev eth0");
    assert_eq!(attach_in(&scene).unwrap(), first);
    assert_eq!(Scene::ip(&scene.pod_name, "link show dev eth0"), link);
    assert!(scene.pings(NODE[0]));
}

#[test]
fn a_failure_at_any_step_leaves_nothing_behind() {
    let scene = Scene::new("fail");
    use Step::{Addresses, Confirm, Create, Finish, Ipv6, Lease, Neighbours, Routes, SetUp};
    let steps = [Lease, Create, Ipv6, SetUp, Addresses, Routes, Neighbours, Confirm, Finish];
    for step in steps {
        let (client, request) = (client(&scene), request(&scene));
        let mut stop = |now| if now == step { Err(AttachError::Wrong(format!("stopped at {now:?}"))) } else { Ok(()) };
        let result = scene.host.run(move || attach_watched(&client, &request, &mut stop)).unwrap();
        assert!(matches!(result, Err(AttachError::Wrong(_))), "{step:?}: {result:?}");
        scene.assert_nothing_left(&format!("{step:?}"));
    }
    println!("figure: {} steps failed one after another, 0 things left behind", steps.len());
    attach_in(&scene).unwrap();
}

#[test]
fn a_refused_request_is_undone_and_reported_first() {
    let scene = Scene::new("refuse");
    for path in ["/v1/pods", "/v1/pods/confirm"] {
        *scene.daemon.refuse.lock().unwrap() = Some(path);
        let result = attach_in(&scene);
        assert!(matches!(result, Err(AttachError::Client(ClientError::Api { status: 500, .. }))), "{path}: {result:?}");
        scene.assert_nothing_left(path);
    }
}

#[test]
fn what_cannot_be_undone_is_named_behind_the_first_error() {
    let scene = Scene::new("undo");
    *scene.daemon.refuse.lock().unwrap() = Some("/v1/pods/release");
    let (client, request) = (client(&scene), request(&scene));
    let mut stop = |step| if step == Step::Routes { Err(AttachError::Wrong("stopped".to_owned())) } else { Ok(()) };
    let result = scene.host.run(move || attach_watched(&client, &request, &mut stop)).unwrap();
    let text = result.unwrap_err().to_string();
    assert!(text.contains("stopped") && text.contains("left behind: the lease ("), "{text}");
    assert_eq!(Scene::links(&scene.host_name), Vec::<String>::new());
}

#[test]
fn a_failed_repetition_keeps_the_link_and_the_lease() {
    let scene = Scene::new("keep");
    attach_in(&scene).unwrap();
    *scene.daemon.refuse.lock().unwrap() = Some("/v1/pods/confirm");
    assert!(attach_in(&scene).is_err());
    assert_eq!(scene.daemon.leases.lock().unwrap().len(), 1);
    assert!(scene.pings(NODE[0]));
}

#[test]
fn a_link_of_someone_else_is_left_alone() {
    let scene = Scene::new("taken");
    let pod = NetNs::open(scene.netns()).unwrap();
    Netlink::connect_in(&pod).unwrap().create_veth(&Veth::new("eth0", "other")).unwrap();
    assert!(matches!(attach_in(&scene), Err(AttachError::Taken { interface }) if interface == "eth0"));
    assert_eq!(Scene::links(&scene.pod_name).len(), 2);
    assert_eq!(Scene::links(&scene.host_name), Vec::<String>::new());
    assert!(detach_in(&scene).is_ok());
    assert_eq!(Scene::links(&scene.pod_name).len(), 2);
}

#[test]
fn both_ends_hand_over_no_more_than_the_tun_takes() {
    let scene = Scene::new("offload");
    attach_in(&scene).unwrap();
    for netns in [&scene.host_name, &scene.pod_name] {
        let links = Scene::ip(netns, "-d link show");
        let veth = links.as_array().unwrap().iter().find(|link| link["ifname"] != "lo").unwrap();
        assert_eq!((veth["gso_max_size"].as_u64(), veth["gso_max_segs"].as_u64()), (Some(61_000), Some(44)), "{netns}");
    }
}

#[test]
fn a_stale_host_end_is_replaced() {
    let scene = Scene::new("stale");
    let mut host = Netlink::connect_in(&scene.host).unwrap();
    host.create_veth(&Veth::new("mw00000000005", "leftover")).unwrap();
    attach_in(&scene).unwrap();
    assert_eq!(Scene::links(&scene.host_name), ["mw00000000005"]);
    assert!(scene.pings(NODE[0]));
}

#[test]
fn a_pod_with_a_default_route_gets_the_overlay_only() {
    let scene = Scene::new("default");
    let pod = NetNs::open(scene.netns()).unwrap();
    let mut netlink = Netlink::connect_in(&pod).unwrap();
    netlink.create_veth(&Veth::new("net0", "far0")).unwrap();
    for arguments in ["link set net0 up", "address add 192.0.2.2/24 dev net0", "route add default via 192.0.2.1"] {
        Scene::ip(&scene.pod_name, arguments);
    }
    let attachment = attach_in(&scene).unwrap();
    assert_eq!(attachment.routes, ["10.32.0.0/12".parse().unwrap(), "::/0".parse().unwrap()]);
    assert_eq!(Scene::ip(&scene.pod_name, "route show default")[0]["dev"], "net0");
    for address in NODE {
        assert!(scene.pings(address), "{address}");
    }
}

#[test]
fn ipv6_is_enabled_on_our_link_where_the_pod_has_it_off() {
    let scene = Scene::new("six-off");
    let pod = NetNs::open(scene.netns()).unwrap();
    pod.run(|| sysctl::write("net.ipv6.conf.default.disable_ipv6", "1")).unwrap().unwrap();
    let attachment = attach_in(&scene).unwrap();
    assert_eq!(attachment.addresses.len(), 2);
    assert!(scene.pings(NODE[1]));
}

#[test]
fn without_ipv6_the_pod_gets_ipv4_and_a_remark() {
    let scene = Scene::new("six-none");
    // The kernel keeps IPv6 off links that cannot carry 1,280 bytes.
    scene.daemon.mtu.store(1200, Ordering::SeqCst);
    let attachment = attach_in(&scene).unwrap();
    assert_eq!((attachment.addresses.len(), attachment.remarks.len()), (1, 1));
    assert!(scene.pings(NODE[0]));
    assert!(check_in(&scene).unwrap());
}

#[test]
fn the_nodes_own_namespace_is_no_pod() {
    let scene = Scene::new("own");
    let own = AttachRequest { netns: format!("/run/netns/{}", scene.host_name).into(), ..request(&scene) };
    let result = scene.host.run(|| attach(&client(&scene), &own)).unwrap();
    assert!(matches!(result, Err(AttachError::Namespace { .. })));
    scene.assert_nothing_left("own");
}

#[test]
fn detach_leaves_nothing_and_may_be_repeated() {
    let scene = Scene::new("detach");
    attach_in(&scene).unwrap();
    detach_in(&scene).unwrap();
    scene.assert_nothing_left("detach");
    detach_in(&scene).unwrap();
}

#[test]
fn without_the_daemon_detach_removes_the_link_and_fails() {
    let mut scene = Scene::new("down");
    attach_in(&scene).unwrap();
    scene.stop();
    for _ in 0..2 {
        assert!(matches!(detach_in(&scene), Err(AttachError::Client(ClientError::Unreachable { .. }))));
        assert_eq!(Scene::links(&scene.pod_name), Vec::<String>::new());
        assert_eq!(Scene::links(&scene.host_name), Vec::<String>::new());
    }
    assert_eq!(scene.daemon.leases.lock().unwrap().len(), 1);
}

#[test]
fn check_tells_whole_broken_and_unknown_links_apart() {
    let scene = Scene::new("check");
    assert!(!check_in(&scene).unwrap());
    attach_in(&scene).unwrap();
    assert!(check_in(&scene).unwrap());
    Scene::ip(&scene.pod_name, "address delete 10.32.0.5/32 dev eth0");
    assert!(matches!(check_in(&scene), Err(AttachError::Wrong(what)) if what.contains("10.32.0.5")));
    Scene::ip(&scene.pod_name, "link set eth0 down");
    assert!(matches!(check_in(&scene), Err(AttachError::Wrong(what)) if what.contains("down")));
    Scene::ip(&scene.pod_name, "link delete eth0");
    assert!(matches!(check_in(&scene), Err(AttachError::Wrong(_))));
    attach_in(&scene).unwrap();
    assert!(check_in(&scene).unwrap());
}
