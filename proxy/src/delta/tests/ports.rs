//! Which ports NodePorts leave for source translation.

use fairlead_ebpf::abi::{ANY_V4, ANY_V6};

use super::*;

/// Of the ports below NodePorts' usual range one NodePort made what is above the local ones, for good.
#[test]
fn source_ports_are_clear_of_node_ports_before_they_answer_and_given_back_after_they_have_gone() {
    let key = |address, port: u16| FrontendKey { address, port: port.to_be_bytes(), ..frontend(0) };
    let mut actual = held(&[], &[]);
    let mut held: Vec<FrontendKey> = Vec::new();
    for (node_ports, order, ports) in [
        (&[][..], "", (1024, 29999)),
        (&[30080], "node +frontends", (1024, 29999)),
        (&[30080, 2000], "source node +frontends", (2001, 29999)),
        (&[30080, 2000, 80], "node +frontends", (2001, 29999)),
        (&[30080, 2000, 80, 20000], "source +frontends", (2001, 19999)),
        (&[30080, 2000, 10000], "-frontends source +frontends node", (10001, 29999)),
        (&[30080], "-frontends source node", (1024, 29999)),
        (&[], "-frontends node", (1024, 29999)),
    ] {
        let both = [ANY_V4, ANY_V6];
        let wanted: Vec<FrontendKey> =
            node_ports.iter().flat_map(|port| both.map(|address| key(address, *port))).collect();
        let mut draft = Draft::new(&actual, ROOMY);
        held.iter().filter(|key| !wanted.contains(key)).for_each(|key| draft.release(*key));
        let frontends = wanted.iter().map(|key| WantedFrontend {
            key: *key,
            set: None,
            local: None,
            value: blank(),
        });
        let frontends = frontends.collect();
        let served = draft.serve(
            &Wanted { counter_id: 1, frontends, source_ranges: vec![] },
            &mut Ids::default(),
        );
        assert_eq!(served, Ok(()));
        let (in_short, next) = steps(&actual, &draft.finish(|| LOCAL_DEFAULT));
        let words = in_short.iter().map(|step| step.split(' ').next().unwrap_or_default());
        assert_eq!(words.collect::<Vec<_>>().join(" "), order, "{node_ports:?}");
        assert_eq!(next.source_ports().bounds(), ports, "{node_ports:?}");
        (actual, held) = (next, wanted);
    }
}

#[test]
fn ports_that_an_earlier_agent_chose_by_other_rules_are_chosen_anew() {
    for chosen in [PortRange::new(61000, 65535), PortRange::NONE, PortRange::new(1024, 29999)] {
        let image = Image { source_ports: chosen, ..image(&[], &[(10, 0)]) };
        let actual = read(&image);
        let (in_short, after) = steps(&actual, &draft(&actual, &[], &[], ROOMY).0);
        assert_eq!(in_short.is_empty(), chosen == PortRange::new(1024, 29999), "{in_short:?}");
        assert_eq!(after.source_ports(), PortRange::new(1024, 29999));
    }
}

#[test]
fn no_file_is_read_where_no_node_port_comes_or_goes() {
    let actual = held(&[], &[(10, 0)]);
    for (actual, expected) in [(&steps(&actual, &Delta::default()).1, 0), (&actual, 1)] {
        let mut questions = 0;
        let delta = Draft::new(actual, ROOMY).finish(|| {
            questions += 1;
            LOCAL_DEFAULT
        });
        assert_eq!((delta.is_empty(), questions), (true, expected));
    }
}
