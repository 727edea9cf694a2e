//! Just enough DER to take an encoding apart and to put a damaged one together.

/// One element: tag, shortest length, content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..=0x7f => out.push(u8::try_from(n).unwrap()),
        n @ 0x80..=0xff => out.extend([0x81, u8::try_from(n).unwrap()]),
        n => {
            out.push(0x82);
            out.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// The whole elements that stand in `content`, one after the other.
pub(crate) fn elements(mut content: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !content.is_empty() {
        let (element, rest) = content.split_at(content.len() - after(content).1.len());
        out.push(element.to_vec());
        content = rest;
    }
    out
}

/// The content of the first element.
pub(crate) fn content(element: &[u8]) -> &[u8] {
    after(element).0
}

fn after(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (head, length) = match bytes[1] {
        0x81 => (3, usize::from(bytes[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        short => (2, usize::from(short)),
    };
    bytes[head..].split_at(length)
}
