//! Deliberate mistakes, one of which a test may plant to see that it is caught. The switch is
//! compiled only with the feature `simulation`, which no ordinary build has; without it no bug is
//! ever planted and every question about it is answered by the compiler.
//!
//! One switch for the whole process: whoever plants a bug does so in a process of its own.

/// A mistake in the protocol, in the checks, or in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SeededBug {
    /// The slot is written while what it refers to may not be on the disk yet.
    SkipFirstSync = 1,
    /// A commit is acknowledged before its slot is on the disk.
    SkipSecondSync,
    /// The slot goes out together with what it refers to.
    SlotBeforeFirstSync,
    /// The hint that promises that both syncs have returned is written before the second.
    HintBeforeSecondSync,
    /// What a commit takes out of use is written over by the same commit.
    ReuseAtOnce,
    /// What commits took out of use that are not durable yet is used again, though the disk still
    /// needs it.
    ReuseBeforeDurable,
    /// Syncs leave out the length of the file.
    SyncWithoutLength,
    /// Both slots of an acknowledged commit are gone, and an older one is taken without a word.
    FallBackSilently,
    /// Expiry forgets that going back to a version has revived its segments.
    FreeRevivedSegments,
    /// A torn slot counts as if its checksum were right.
    AcceptTornSlot,
    /// The second copy of the slot is not written.
    OneSlotCopy,
    /// The next writer does not make sure that the newest commit is durable.
    SkipConfirmation,
    /// A writer goes on after a failed sync.
    ForgetPoison,
    /// What lies behind the newest commit is cut off before that commit is known to be durable.
    CutBeforeConfirmation,
    /// Space is given back before the commit that frees it is durable.
    PunchBeforeCommit,
    /// Bytes are believed without their checksum.
    SkipChecksums,
    /// New points do not widen the nodes above them.
    ForgetAncestorRadii,
    /// Powers of two get the level below theirs.
    LevelAtPowersOfTwo,
    /// Bounds ignore that computed distances are rounded.
    DropSlack,
    /// A reader pins its version after it has left the gate.
    PinOutsideGate,
    /// The writer looks for pins, and does not keep new ones away until the versions are gone.
    LookForPinsOnly,
    /// The writer knows of no pins but its own.
    OwnPinsOnly,
    /// A version that a handle has open twice is unpinned when the first of the two is closed.
    UnpinAtFirstDrop,
    /// The slot is written while readers look, who then see a commit that may not last.
    SlotOutsideGate,
    /// Who leaves the gate gives up the writer's lock, too.
    UnlockWriterAtGate,
    /// What a reader finds in the middle of a commit counts as damage.
    BelieveFirstGlance,
    /// A place of the ring that the device cannot read counts as if no commit lay there.
    TrustUnreadablePlaces,
    /// The next writer puts the only good copy of the newest slot at stake to mend the other.
    RewriteTheGoodCopyFirst,
    /// What a commit copies gets a fresh checksum, whatever has become of it since it was first
    /// read.
    SealWithoutLooking,
}

impl SeededBug {
    /// Every bug there is.
    pub const ALL: [SeededBug; 29] = [
        SeededBug::SkipFirstSync,
        SeededBug::SkipSecondSync,
        SeededBug::SlotBeforeFirstSync,
        SeededBug::HintBeforeSecondSync,
        SeededBug::ReuseAtOnce,
        SeededBug::ReuseBeforeDurable,
        SeededBug::SyncWithoutLength,
        SeededBug::FallBackSilently,
        SeededBug::FreeRevivedSegments,
        SeededBug::AcceptTornSlot,
        SeededBug::OneSlotCopy,
        SeededBug::SkipConfirmation,
        SeededBug::ForgetPoison,
        SeededBug::CutBeforeConfirmation,
        SeededBug::PunchBeforeCommit,
        SeededBug::SkipChecksums,
        SeededBug::ForgetAncestorRadii,
        SeededBug::LevelAtPowersOfTwo,
        SeededBug::DropSlack,
        SeededBug::PinOutsideGate,
        SeededBug::LookForPinsOnly,
        SeededBug::OwnPinsOnly,
        SeededBug::UnpinAtFirstDrop,
        SeededBug::SlotOutsideGate,
        SeededBug::UnlockWriterAtGate,
        SeededBug::BelieveFirstGlance,
        SeededBug::TrustUnreadablePlaces,
        SeededBug::RewriteTheGoodCopyFirst,
        SeededBug::SealWithoutLooking,
    ];

    /// Plants the bug in this process, for good.
    #[cfg(feature = "simulation")]
    pub fn plant(self) {
        switch::PLANTED.store(self as u8, std::sync::atomic::Ordering::SeqCst);
    }

    /// True if this is the bug that was planted.
    #[inline(always)]
    pub(crate) fn is_planted(self) -> bool {
        #[cfg(feature = "simulation")]
        return switch::PLANTED.load(std::sync::atomic::Ordering::Relaxed) == self as u8;
        #[cfg(not(feature = "simulation"))]
        false
    }

    /// True if some bug was planted.
    pub(crate) fn is_any_planted() -> bool {
        #[cfg(feature = "simulation")]
        return switch::PLANTED.load(std::sync::atomic::Ordering::Relaxed) != 0;
        #[cfg(not(feature = "simulation"))]
        false
    }

    /// Takes a step, unless this bug leaves it out.
    #[inline(always)]
    pub(crate) fn skips<E>(self, step: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        match self.is_planted() {
            true => Ok(()),
            false => step(),
        }
    }
}

#[cfg(feature = "simulation")]
mod switch {
    /// The bug that is planted; 0: none.
    pub(super) static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
}
