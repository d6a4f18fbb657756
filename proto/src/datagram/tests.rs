use super::*;

fn full(slot: u16) -> Sample {
    Sample {
        slot,
        busy_percent: Some(97),
        memory_used_bytes: Some(79 << 30),
        temperature_c: Some(71),
        power_mw: Some(698_000),
    }
}

fn examples() -> Vec<Datagram> {
    let renewal = Renewal { session: 0x0102_0304_0506_0708, number: 9 };
    let mut all = vec![Datagram::Renewal(renewal), Datagram::Extended(renewal)];
    all.push(Datagram::Telemetry { session: 5, samples: Vec::new() });
    all.push(Datagram::Telemetry { session: 5, samples: vec![full(3), Sample { slot: 4, ..Sample::default() }] });
    all.push(Datagram::Telemetry { session: u64::MAX, samples: vec![full(u16::MAX); SAMPLES_MAX] });
    let whys = [Why::Version, Why::Malformed, Why::NotHere, Why::Other(77)];
    all.extend(whys.map(|why| Datagram::Refusal(Refusal::ours(why))));
    all
}

#[test]
fn what_is_written_is_read_back_and_every_datagram_is_short_enough() {
    for datagram in examples() {
        let bytes = encode(&datagram);
        assert!(bytes.len() <= BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(decode(&bytes), Ok(datagram));
    }
}

#[test]
fn the_bytes_of_version_1_and_of_the_frozen_refusal_do_not_change() {
    let renewal = Renewal { session: 0x0807_0605_0403_0201, number: 0x10 };
    let golden: [u8; 18] = [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(encode(&Datagram::Renewal(renewal)), golden);
    let sample = Sample { slot: 2, busy_percent: Some(50), power_mw: Some(0x0102), ..Sample::default() };
    let telemetry = encode(&Datagram::Telemetry { session: 1, samples: vec![sample] });
    let golden = [1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 9, 50, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(telemetry, golden);
    let refusal = Refusal { oldest: 1, newest: 3, why: Why::Version };
    assert_eq!(encode(&Datagram::Refusal(refusal)), [0, 1, 3, 1]);
}

#[test]
fn another_version_is_refused_by_its_number_whatever_follows() {
    for version in 2..=u8::MAX {
        for rest in [&[][..], &[1; 17], &[0xFF; 400]] {
            let bytes = [&[version], rest].concat();
            assert_eq!(decode(&bytes), Err(DecodeError::Version(version)));
        }
    }
    assert_eq!(DecodeError::Version(2).why(), Why::Version);
}

#[test]
fn cut_lengthened_and_out_of_range_datagrams_are_refused() {
    for datagram in examples() {
        let bytes = encode(&datagram);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{datagram:?} cut to {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(decode(&longer).is_err(), "{datagram:?} with a byte more");
    }
    let mut bytes = encode(&Datagram::Telemetry { session: 5, samples: vec![full(3)] });
    bytes[14] = 101;
    assert_eq!(decode(&bytes), Err(DecodeError::Field("busy_percent")));
    bytes[14] = 97;
    bytes[13] = 0x1F;
    assert_eq!(decode(&bytes), Err(DecodeError::Field("known")));
    bytes[13] = 0;
    assert_eq!(decode(&bytes), Err(DecodeError::Field("known")), "a value that is said not to be known");
    assert_eq!(decode(&[1, 9]), Err(DecodeError::Kind(9)));
    assert_eq!(decode(&[1; BYTES_MAX + 1]), Err(DecodeError::TooLong(BYTES_MAX + 1)));
    assert_eq!(decode(&[]), Err(DecodeError::Short));
}

#[test]
fn random_bytes_never_panic_and_what_decodes_has_one_form() {
    let seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut state = seed;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let whole: Vec<Vec<u8>> = examples().iter().map(encode).collect();
    let mut taken = 0;
    for round in 0..200_000 {
        let mut bytes = whole[next() as usize % whole.len()].clone();
        for _ in 0..next() % 4 {
            let at = next() as usize % bytes.len();
            bytes[at] = next() as u8;
        }
        bytes.truncate(bytes.len() - (next() % 5 / 4) as usize);
        if let Ok(datagram) = decode(&bytes) {
            taken += 1;
            assert_eq!(encode(&datagram), bytes, "round {round} of seed {seed:#x}");
        }
    }
    assert!(taken > 10_000, "only {taken} were taken: the test looks at refusals alone");
}

#[test]
fn many_devices_go_into_several_datagrams() {
    let samples: Vec<Sample> = (0..256).map(full).collect();
    let datagrams: Vec<Datagram> = telemetry_of(7, &samples).collect();
    assert_eq!(datagrams.len(), 256usize.div_ceil(SAMPLES_MAX));
    let mut back = Vec::new();
    for datagram in &datagrams {
        let Ok(Datagram::Telemetry { session: 7, samples }) = decode(&encode(datagram)) else { panic!("{datagram:?}") };
        back.extend(samples);
    }
    assert_eq!(back, samples);
}

#[test]
fn a_sample_on_the_stream_is_checked_as_one_in_a_datagram_is() {
    let wire = crate::agent::DeviceSample::from(&full(3));
    assert_eq!(Sample::try_from(&wire), Ok(full(3)));
    let busy = crate::agent::DeviceSample { busy_percent: Some(300), ..wire };
    assert_eq!(Sample::try_from(&busy), Err(DecodeError::Field("busy_percent")));
    let slot = crate::agent::DeviceSample { slot: 70_000, ..wire };
    assert_eq!(Sample::try_from(&slot), Err(DecodeError::Field("slot")));
}
