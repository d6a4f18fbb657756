//! A ring of ranks over TCP: everybody meets at rank 0, then each talks to its two neighbours.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// Guards against whatever else may knock at the port.
const MAGIC: u32 = 0x4d53_5452;
const PAUSE: Duration = Duration::from_millis(50);
const ID_BYTES_MAX: usize = 256;

/// What a rank knows from its environment.
#[derive(Debug, Clone)]
pub struct Member {
    pub rank: u32,
    pub world_size: u32,
    pub master_addr: String,
    pub master_port: u16,
    /// Differs between attempts: ranks of an old one cannot join a new one.
    pub run_id: String,
}

#[derive(Debug)]
pub struct Ring {
    rank: usize,
    size: usize,
    left: TcpStream,
    right: TcpStream,
}

/// Numbers that can be summed and sent.
pub trait Element: Copy + PartialEq + std::fmt::Debug + Send + Sync {
    fn of(number: u64) -> Self;
    fn plus(self, other: Self) -> Self;
    fn to_bytes(self) -> [u8; 8];
    fn from_bytes(bytes: [u8; 8]) -> Self;
}

impl Element for i64 {
    fn of(number: u64) -> Self {
        number as i64
    }
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn to_bytes(self) -> [u8; 8] {
        self.to_le_bytes()
    }
    fn from_bytes(bytes: [u8; 8]) -> Self {
        i64::from_le_bytes(bytes)
    }
}

impl Element for f64 {
    fn of(number: u64) -> Self {
        number as f64
    }
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn to_bytes(self) -> [u8; 8] {
        self.to_le_bytes()
    }
    fn from_bytes(bytes: [u8; 8]) -> Self {
        f64::from_le_bytes(bytes)
    }
}

impl Ring {
    /// Waits for everybody, at most `limit`. `None` for a gang of one.
    pub fn join(member: &Member, limit: Duration) -> io::Result<Option<Self>> {
        if member.world_size <= 1 {
            return Ok(None);
        }
        let deadline = Instant::now() + limit;
        let listener = TcpListener::bind(("0.0.0.0", 0))?;
        let port = listener.local_addr()?.port();
        let table = if member.rank == 0 { gather(member, port, deadline)? } else { report(member, port, deadline)? };
        let right_rank = (member.rank + 1) % member.world_size;
        let left_rank = (member.rank + member.world_size - 1) % member.world_size;
        let mut right = dial(table[right_rank as usize], deadline)?;
        write_hello(&mut right, member, member.rank, 0)?;
        let left = accept_from(&listener, member, left_rank, deadline)?;
        for stream in [&left, &right] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
        }
        Ok(Some(Self { rank: member.rank as usize, size: member.world_size as usize, left, right }))
    }

    /// Replaces `values` by the sum over all ranks: reduce-scatter, then all-gather.
    pub fn all_reduce<T: Element>(&mut self, values: &mut [T]) -> io::Result<()> {
        let size = self.size;
        let bounds = |chunk: usize| (chunk * values.len() / size, (chunk + 1) * values.len() / size);
        let chunks: Vec<(usize, usize)> = (0..size).map(bounds).collect();
        for step in 0..2 * (size - 1) {
            let reducing = step < size - 1;
            let base = self.rank + 2 * size;
            // In the second half each rank begins with the chunk it has finished.
            let sent = if reducing { base - step } else { base + 1 - (step + 1 - size) } % size;
            let taken = (sent + size - 1) % size;
            let outgoing: Vec<u8> =
                values[chunks[sent].0..chunks[sent].1].iter().flat_map(|value| value.to_bytes()).collect();
            let mut incoming = vec![0; (chunks[taken].1 - chunks[taken].0) * 8];
            // Both at once: two neighbours that only write to each other would wait for ever.
            let (left, right) = (&mut self.left, &mut self.right);
            thread::scope(|scope| {
                let sender = scope.spawn(move || right.write_all(&outgoing));
                let received = left.read_exact(&mut incoming);
                let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
                received.and(sent)
            })?;
            for (value, bytes) in values[chunks[taken].0..chunks[taken].1].iter_mut().zip(incoming.chunks_exact(8)) {
                let number = T::from_bytes(bytes.try_into().expect("chunks of eight bytes"));
                *value = if reducing { value.plus(number) } else { number };
            }
        }
        Ok(())
    }
}

/// Rank 0: hears from everybody, tells everybody.
fn gather(member: &Member, own_port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    let listener = TcpListener::bind(("0.0.0.0", member.master_port))?;
    let size = member.world_size as usize;
    let mut streams: Vec<Option<(TcpStream, SocketAddr)>> = (0..size).map(|_| None).collect();
    let mut missing = size - 1;
    while missing > 0 {
        let (mut stream, from) = accept(&listener, deadline).map_err(|error| {
            io::Error::new(error.kind(), format!("{missing} of {size} ranks have not come to the rendezvous: {error}"))
        })?;
        // Something else may knock; it is not one of us and is let go.
        let Ok((rank, port)) = read_hello(&mut stream, member, deadline) else { continue };
        let Some(slot) = streams.get_mut(rank as usize).filter(|_| rank > 0) else { continue };
        if slot.is_none() {
            missing -= 1;
        }
        *slot = Some((stream, SocketAddr::new(from.ip(), port)));
    }
    let own: IpAddr = resolve(&member.master_addr, 0)?.ip();
    let table: Vec<SocketAddr> = streams
        .iter()
        .map(|slot| slot.as_ref().map_or(SocketAddr::new(own, own_port), |(_, address)| *address))
        .collect();
    let text = table.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for (stream, _) in streams.iter_mut().flatten() {
        write_text(stream, &text)?;
    }
    Ok(table)
}

/// Everybody else.
fn report(member: &Member, own_port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    loop {
        let master = resolve(&member.master_addr, member.master_port)?;
        let mut stream = dial(master, deadline)?;
        let answer = write_hello(&mut stream, member, member.rank, own_port).and_then(|()| {
            stream.set_read_timeout(Some(left(deadline)?))?;
            read_text(&mut stream, member.world_size as usize * 64)
        });
        match answer {
            Ok(text) => {
                let table: Result<Vec<SocketAddr>, _> = text.split(' ').map(str::parse).collect();
                let table = table.map_err(io::Error::other)?;
                return if table.len() == member.world_size as usize {
                    Ok(table)
                } else {
                    Err(io::Error::other("the table of ranks is not whole"))
                };
            }
            // Rank 0 may not be the one that listens there yet.
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    (host, port).to_socket_addrs()?.next().ok_or_else(|| io::Error::other(format!("{host} has no address")))
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::Error::new(io::ErrorKind::TimedOut, "the deadline of the rendezvous is over"))
    } else {
        Ok(left)
    }
}

fn dial(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() + PAUSE >= deadline => {
                return Err(io::Error::new(error.kind(), format!("cannot reach {address}: {error}")));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn accept(listener: &TcpListener, deadline: Instant) -> io::Result<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false)?;
                return Ok((stream, from));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                left(deadline)?;
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
}

fn accept_from(listener: &TcpListener, member: &Member, wanted: u32, deadline: Instant) -> io::Result<TcpStream> {
    loop {
        let (mut stream, _) = accept(listener, deadline)?;
        if let Ok((rank, _)) = read_hello(&mut stream, member, deadline)
            && rank == wanted
        {
            return Ok(stream);
        }
    }
}

fn write_hello(stream: &mut TcpStream, member: &Member, rank: u32, port: u16) -> io::Result<()> {
    let mut hello = MAGIC.to_le_bytes().to_vec();
    hello.extend(rank.to_le_bytes());
    hello.extend(port.to_le_bytes());
    stream.write_all(&hello)?;
    write_text(stream, &member.run_id)
}

fn read_hello(stream: &mut TcpStream, member: &Member, deadline: Instant) -> io::Result<(u32, u16)> {
    stream.set_read_timeout(Some(left(deadline)?.min(Duration::from_secs(5))))?;
    let mut hello = [0; 10];
    stream.read_exact(&mut hello)?;
    let number = |at: usize| u32::from_le_bytes(hello[at..at + 4].try_into().expect("four bytes"));
    if number(0) != MAGIC || read_text(stream, ID_BYTES_MAX)? != member.run_id {
        return Err(io::Error::other("not a rank of this run"));
    }
    Ok((number(4), u16::from_le_bytes([hello[8], hello[9]])))
}

fn write_text(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(&(text.len() as u32).to_le_bytes())?;
    stream.write_all(text.as_bytes())
}

fn read_text(stream: &mut TcpStream, bytes_max: usize) -> io::Result<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(io::Error::other("a text longer than it can be"));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}
