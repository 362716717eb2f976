#include "tracer/instruction.hpp"

namespace holdfast::crash {
namespace {

struct Prefixes {
    bool lock = false, operand_16 = false, rex_w = false;
};

// Stores of general registers and immediates, with the two-byte map's vector stores below.
std::size_t stored_by_one_byte_opcode(unsigned char opcode, const Prefixes& prefixes) {
    const std::size_t operand = prefixes.rex_w ? 8 : prefixes.operand_16 ? 2 : 4;
    switch (opcode) {
        case 0x88:  // mov r/m8, r8
        case 0xc6:  // mov r/m8, imm8
        case 0xaa:  // stosb
        case 0xa4:  // movsb, if it is the destination that faulted
            return 1;
        case 0x89:  // mov r/m, r
        case 0xc7:  // mov r/m, imm
        case 0xab:  // stos
        case 0xa5:  // movs
            return operand;
        default:
            return 0;
    }
}

bool is_vector_store(unsigned char opcode) {
    // movups, movaps, movntps, movdqa/movdqu, movntdq
    return opcode == 0x11 || opcode == 0x29 || opcode == 0x2b || opcode == 0x7f || opcode == 0xe7;
}

bool is_vector_non_temporal(unsigned char opcode) { return opcode == 0x2b || opcode == 0xe7; }

}  // namespace

MemoryAccess decode(const void* instruction) {
    const auto* byte = static_cast<const unsigned char*>(instruction);
    MemoryAccess access;
    Prefixes prefixes;
    bool repeats = false, scalar = false;
    for (bool more = true; more;) {
        switch (*byte) {
            case 0xf0:
                prefixes.lock = true;
                break;
            case 0x66:
                prefixes.operand_16 = true;
                break;
            case 0xf2:
            case 0xf3:
                scalar = repeats = true;
                break;
            case 0x2e:
            case 0x36:
            case 0x3e:
            case 0x26:
            case 0x64:
            case 0x65:
                break;
            default:
                more = false;
                continue;
        }
        ++byte;
    }
    (void)repeats;  // each repetition traps by itself
    access.is_locked = prefixes.lock;
    const bool vex = *byte == 0xc5 || *byte == 0xc4, evex = *byte == 0x62;
    if (vex || evex) {
        // VEX.L and EVEX.L'L give the width; map 1 is what the two-byte opcodes are.
        const bool two_bytes = *byte == 0xc5;
        const unsigned char last = byte[two_bytes ? 1 : vex ? 2 : 3];
        const bool map_1 = two_bytes || (byte[1] & (evex ? 0x07 : 0x1f)) == 1;
        const unsigned char opcode = byte[two_bytes ? 2 : vex ? 3 : 4];
        const std::size_t width =
            evex ? std::size_t{16} << (last >> 5 & 3) : std::size_t{16} << (last >> 2 & 1);
        const unsigned char kind = evex ? byte[2] & 3 : last & 3;  // pp: 2 and 3 are scalar moves
        access.is_non_temporal = map_1 && is_vector_non_temporal(opcode);
        const bool whole = opcode != 0x11 || kind < 2;
        const bool masked = evex && (last & 7) != 0;
        if (map_1 && is_vector_store(opcode) && whole && !masked) access.stored_bytes = width;
        return access;
    }
    if ((*byte & 0xf0) == 0x40) {
        prefixes.rex_w = (*byte & 8) != 0;
        ++byte;
    }
    if (*byte == 0x86 || *byte == 0x87) access.is_locked = true;  // xchg
    if (*byte != 0x0f) {
        access.loaded_bytes = 8;
        if (!access.is_locked) access.stored_bytes = stored_by_one_byte_opcode(*byte, prefixes);
        return access;
    }
    if (byte[1] == 0xc3) {  // movnti
        access.is_non_temporal = true;
        access.stored_bytes = prefixes.rex_w ? 8 : 4;
    } else if (is_vector_store(byte[1])) {
        access.is_non_temporal = is_vector_non_temporal(byte[1]);
        // movss and movsd store a part, movdqu (F3 0F 7F) all of it.
        if (!scalar || byte[1] == 0x7f) access.stored_bytes = 16;
    } else if (byte[1] == 0xb6 || byte[1] == 0xb7 || byte[1] == 0xbe || byte[1] == 0xbf) {
        access.loaded_bytes = 2;  // movzx, movsx
    }
    return access;
}

}  // namespace holdfast::crash
