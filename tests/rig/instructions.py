"""What tinygrad's instruction emulator (test/mockgpu/amd/emu.py) lacks to run whole code objects, taught from outside.

    teach(tinygrad)        once, before the first launch
    without_getpc(code)    for every loaded code object

    without_addresses(body)

Each lane of a wave is written before the next one is read there, shared memory is read for lanes that are off, constants
cannot be the summand of a matrix product, and there is neither a program counter to read nor a far jump.
"""
import sys


def teach(tinygrad):
    sys.path.insert(0, tinygrad)
    from test.mockgpu.amd import emu

    class Taught(emu._Ctx):
        """The context of an instruction's translation; `guard` changes what is read from the vector registers."""
        guard = None

        def rvgpr_dyn(self, reg, lane, *rest):
            plain = super().rvgpr_dyn
            return self.guard(plain, reg, lane, *rest) if self.guard else plain(reg, lane, *rest)

    def reads(reg, field):
        return field in reg.toposort()

    def shared_memory(inst, ctx):
        """Lanes that are off have the address 0."""
        address, exec_mask = ctx.inst_field(type(inst).addr), ctx.rexec()

        def guard(plain, reg, lane, *rest):
            value = plain(reg, lane, *rest)
            return emu._lane_active(exec_mask, lane).where(value, emu._c(0)) if reads(reg, address) else value
        return guard

    def matrix(inst, ctx):
        """A summand that is a constant stands beside the scalar registers."""
        summand = ctx.inst_field(type(inst).src2)

        def guard(plain, reg, lane, *rest):
            if not reads(reg, summand):
                return plain(reg, lane, *rest)
            is_vector = summand >= emu._c(256)
            return is_vector.where(plain(is_vector.where(reg, emu._c(0)), lane, *rest),
                                   ctx.rsgpr_dyn(is_vector.where(emu._c(128), summand)))
        return guard

    def from_other_lanes(inst, ctx):
        """All lanes are read before the first is written."""
        source = ctx.inst_field(type(inst).vsrc0)

        def guard(plain, reg, lane, *rest):
            if not reads(reg, source) or lane.op is emu.Ops.CONST:
                return plain(reg, lane, *rest)
            value = plain(reg, emu._c(0, emu.dtypes.int), *rest)
            for i in range(1, 32):
                value = lane.cast(emu.dtypes.int).eq(emu._c(i, emu.dtypes.int)).where(
                    plain(reg, emu._c(i, emu.dtypes.int), *rest), value)
            return value
        return guard

    def far_jump(inst, ctx):
        source = ctx.inst_field(type(inst).ssrc0)
        low, high = ctx.rsgpr_dyn(source), ctx.rsgpr_dyn(source + emu._c(1))
        return emu.UOp.sink(ctx.wsgpr_dyn(emu._c(emu.PC_LO_IDX), low), ctx.wsgpr_dyn(emu._c(emu.PC_HI_IDX), high))

    def guarded(kind, guard_of, is_meant=lambda inst: True):
        plain = emu._INST_HANDLERS[kind]

        def handler(inst, ctx):
            ctx.guard = guard_of(inst, ctx) if is_meant(inst) else None
            return plain(inst, ctx)
        emu._INST_HANDLERS[kind] = handler

    emu._Ctx = Taught
    for isa in (emu.ir3, emu.ir4):
        guarded(isa.DS, shared_memory, lambda inst: "PERMUTE" not in str(inst.op))
        guarded(isa.VOP3P, matrix, lambda inst: "WMMA" in str(inst.op))
        for kind in (isa.VOP1_DPP16, isa.VOP2_DPP16, isa.VOPC_DPP16):
            guarded(kind, from_other_lanes)
        plain = emu._INST_HANDLERS[isa.SOP1]
        emu._INST_HANDLERS[isa.SOP1] = (
            lambda inst, ctx, plain=plain: far_jump(inst, ctx) if "S_SETPC_B64" in str(inst.op) else plain(inst, ctx))


def address_loads(words):
    """Where s_getpc_b64 and the additions to it stand: (index, index behind, low register, offset from the one behind it)."""
    i = 0
    while i < len(words) - 6:
        word, at = words[i], i + 1
        low = word >> 16 & 0x7f
        at += words[at] == (0xbe800f00 | (low + 1) << 16 | (low + 1))  # gfx12: s_sext_i32_i16 before
        if word & 0xff80ff00 != 0xbe804700 or words[at] != (0x8000ff00 | low << 16 | low):  # s_add_u32 of a literal
            i += 1
            continue
        offset, at = words[at + 1], at + 2
        high, at = {0xff: (words[at + 1], at + 2), 0x80: (0, at + 1), 0xc1: (0xffffffff, at + 1)}[words[at] >> 8 & 0xff]
        yield i, at, low, offset | high << 32
        i = at


def without_getpc(code):
    """Replaces these by the address that they compute."""
    words = memoryview(code._image)[:len(code._image) // 4 * 4].cast("I")
    for i, end, low, offset in list(address_loads(words)):
        address = code._base + 4 * (i + 1) + offset & 0xffffffffffffffff
        moves = [0xbe8000ff | low << 16, address & 0xffffffff, 0xbe8000ff | (low + 1) << 16, address >> 32]
        for k, value in enumerate(moves + [0xbf800000] * (end - i - 4)):  # s_mov_b32 twice, s_nop
            words[i + k] = value
    words.release()


def without_addresses(body):
    """A kernel's instructions without what depends on where it lies."""
    words = list(memoryview(body).cast("I"))
    for i, end, _, _ in list(address_loads(words)):
        words[i:end] = [0] * (end - i)
    return b"".join(word.to_bytes(4, "little") for word in words)
