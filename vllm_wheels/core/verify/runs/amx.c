/* Executes AMX instructions on a CPU that has none: preloaded into a process, it catches the signal that they raise there.
 *
 * Knows AMX_TILE, AMX_BF16 and AMX_INT8, palette 1, as the Intel 64 and IA-32 Architectures Software Developer's Manual,
 * volume 2, specifies them. Whatever else raises SIGILL, and a use of tiles that a CPU would refuse, ends the process as
 * it would without this library. Who asks Linux for the permission to use tiles, through syscall(), is given it. The
 * variable AMX_COUNTS names a file of records (struct record) in which all processes together count what they executed.
 *
 *     cc -shared -fPIC -O3 -mavx2 -mfma -o amx.so amx.c
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, ROW_WORDS = ROW_BYTES / 4, NO_REGISTER = 4, ESCAPE_VEX3 = 0xc4, MAP_0F38 = 2 };

/* Flush denormal results, take denormal operands for zero, round to nearest, raise nothing. */
enum { MXCSR_OF_AMX = 0x9fc0 };

/* Of arch_prctl(2): the request, and the number of the state that tile registers are. */
enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18, LARGEST_ERROR = 4095 };

enum prefix { PREFIX_NONE, PREFIX_66, PREFIX_F3, PREFIX_F2 };

enum operation {
    LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED,
    TDPBF16PS, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD, OPERATIONS,
};

struct record {
    char feature[16];
    char name[16];
    uint64_t count;
};

static struct record own_records[OPERATIONS] = {
    {"AMX_TILE", "LDTILECFG", 0}, {"AMX_TILE", "STTILECFG", 0},   {"AMX_TILE", "TILERELEASE", 0},
    {"AMX_TILE", "TILEZERO", 0},  {"AMX_TILE", "TILELOADD", 0},   {"AMX_TILE", "TILELOADDT1", 0},
    {"AMX_TILE", "TILESTORED", 0}, {"AMX_BF16", "TDPBF16PS", 0},  {"AMX_INT8", "TDPBSSD", 0},
    {"AMX_INT8", "TDPBSUD", 0},   {"AMX_INT8", "TDPBUSD", 0},     {"AMX_INT8", "TDPBUUD", 0},
};
static struct record *records = own_records;

/* The layout of LDTILECFG's operand. */
struct configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

union tile {
    uint8_t bytes[ROWS][ROW_BYTES];
    uint32_t words[ROWS][ROW_WORDS];
    int32_t integers[ROWS][ROW_WORDS];
    float floats[ROWS][ROW_WORDS];
};

/* A thread's own, as tile registers are; the model spares the signal handler a call that may allocate memory. */
static __thread struct configuration configuration __attribute__((tls_model("initial-exec")));
static __thread union tile tiles[TILES] __attribute__((tls_model("initial-exec")));

struct instruction {
    enum operation operation;
    bool in_memory;
    int first, second, third; /* tile registers: ModRM.reg, ModRM.rm, VEX.vvvv */
    uint8_t *address;
    int64_t stride;
    int length;
};

static const int GENERAL_REGISTERS[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static bool known(int opcode, enum prefix prefix, bool in_memory, enum operation *operation)
{
    static const struct { int opcode; enum prefix prefix; bool in_memory; enum operation operation; } TABLE[] = {
        {0x49, PREFIX_NONE, true, LDTILECFG},   {0x49, PREFIX_66, true, STTILECFG},
        {0x49, PREFIX_NONE, false, TILERELEASE}, {0x49, PREFIX_F2, false, TILEZERO},
        {0x4b, PREFIX_F2, true, TILELOADD},     {0x4b, PREFIX_66, true, TILELOADDT1},
        {0x4b, PREFIX_F3, true, TILESTORED},    {0x5c, PREFIX_F3, false, TDPBF16PS},
        {0x5e, PREFIX_F2, false, TDPBSSD},      {0x5e, PREFIX_F3, false, TDPBSUD},
        {0x5e, PREFIX_66, false, TDPBUSD},      {0x5e, PREFIX_NONE, false, TDPBUUD},
    };
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++)
        if (TABLE[i].opcode == opcode && TABLE[i].prefix == prefix && TABLE[i].in_memory == in_memory) {
            *operation = TABLE[i].operation;
            return true;
        }
    return false;
}

static int32_t read_displacement(const uint8_t *at)
{
    int32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Fills in address and stride of a memory operand; returns the number of bytes behind ModRM. */
static int locate(struct instruction *found, const uint8_t *code, int modrm, int vex1, const greg_t *registers)
{
    int mod = modrm >> 6, low = modrm & 7, used = 0;
    int base = low | (vex1 & 0x20 ? 0 : 8);
    int64_t address = 0;
    if (low == NO_REGISTER) {
        int sib = code[used++];
        int index = ((sib >> 3) & 7) | (vex1 & 0x40 ? 0 : 8);
        low = sib & 7;
        base = low | (vex1 & 0x20 ? 0 : 8);
        if (index != NO_REGISTER)
            found->stride = (int64_t)((uint64_t)registers[GENERAL_REGISTERS[index]] << (sib >> 6));
    } else if (mod == 0 && low == 5) {
        /* Relative to the next instruction, which begins behind the displacement. */
        found->address = (uint8_t *)code + 4 + read_displacement(code);
        return 4;
    }
    if (mod == 0 && low == 5) {
        address = read_displacement(code + used);
        used += 4;
    } else {
        address = registers[GENERAL_REGISTERS[base]];
        if (mod == 1)
            address += (int8_t)code[used++];
        if (mod == 2) {
            address += read_displacement(code + used);
            used += 4;
        }
    }
    found->address = (uint8_t *)address;
    return used;
}

static bool decode(struct instruction *found, const uint8_t *code, const greg_t *registers)
{
    if (code[0] != ESCAPE_VEX3 || (code[1] & 0x1f) != MAP_0F38 || (code[2] & 0x84) != 0)
        return false; /* no VEX with three bytes, another map, VEX.W1 or VEX.256 */
    int modrm = code[4];
    memset(found, 0, sizeof *found);
    found->in_memory = modrm >> 6 != 3;
    if (!known(code[3], code[2] & 3, found->in_memory, &found->operation))
        return false;
    found->first = (modrm >> 3) & 7;
    found->second = modrm & 7;
    found->third = ~(code[2] >> 3) & 15;
    bool strided = found->operation == TILELOADD || found->operation == TILELOADDT1 || found->operation == TILESTORED;
    if (found->third >= TILES || !(code[1] & 0x80) || (!found->in_memory && !(code[1] & 0x20)) ||
        (strided && found->second != NO_REGISTER))
        return false; /* there are no tiles 8 to 15, and tiles are loaded and stored with a SIB byte */
    found->length = 5 + (found->in_memory ? locate(found, code + 5, modrm, code[1], registers) : 0);
    return true;
}

static bool configured(int tile)
{
    return configuration.palette == 1 && configuration.rows[tile] != 0 && configuration.start_row == 0;
}

static bool configure(const uint8_t *from)
{
    struct configuration wanted;
    memcpy(&wanted, from, sizeof wanted);
    if (wanted.palette > 1 || (wanted.palette == 1 && wanted.start_row != 0))
        return false; /* loads are never interrupted here, so nobody may ask to resume one */
    for (int tile = 0; tile < 2 * TILES && wanted.palette == 1; tile++) {
        int rows = wanted.rows[tile], bytes = wanted.row_bytes[tile];
        if (rows > ROWS || bytes > ROW_BYTES || (rows == 0) != (bytes == 0) || (rows != 0 && tile >= TILES))
            return false;
    }
    if (wanted.palette == 0)
        memset(&wanted, 0, sizeof wanted);
    configuration = wanted;
    memset(tiles, 0, sizeof tiles);
    return true;
}

static void load(const struct instruction *wanted)
{
    union tile *tile = &tiles[wanted->first];
    const uint8_t *from = wanted->address;
    memset(tile, 0, sizeof *tile);
    for (int row = 0; row < configuration.rows[wanted->first]; row++, from += wanted->stride)
        memcpy(tile->bytes[row], from, configuration.row_bytes[wanted->first]);
}

static void store(const struct instruction *wanted)
{
    uint8_t *to = wanted->address;
    for (int row = 0; row < configuration.rows[wanted->first]; row++, to += wanted->stride)
        memcpy(to, tiles[wanted->first].bytes[row], configuration.row_bytes[wanted->first]);
}

/* Words of a row beyond a tile's columns are always zero, so that whole rows may be multiplied. */
static bool multipliable(const struct instruction *wanted)
{
    int result = wanted->first, left = wanted->second, right = wanted->third;
    const uint16_t *bytes = configuration.row_bytes;
    return configured(result) && configured(left) && configured(right) && result != left && result != right &&
           left != right && bytes[result] % 4 == 0 && bytes[left] % 4 == 0 && bytes[right] % 4 == 0 &&
           configuration.rows[result] == configuration.rows[left] && bytes[result] == bytes[right] &&
           bytes[left] / 4 == configuration.rows[right];
}

static float widened(uint32_t upper_half)
{
    float value;
    memcpy(&value, &upper_half, sizeof value);
    return value;
}

static void multiply_bf16(const struct instruction *wanted)
{
    union tile *result = &tiles[wanted->first];
    const union tile *left = &tiles[wanted->second], *right = &tiles[wanted->third];
    unsigned int before = _mm_getcsr();
    _mm_setcsr(MXCSR_OF_AMX);
    for (int row = 0; row < configuration.rows[wanted->first]; row++) {
        float even[ROW_WORDS] = {0}, odd[ROW_WORDS] = {0};
        for (int pair = 0; pair < configuration.row_bytes[wanted->second] / 4; pair++) {
            uint32_t both = left->words[row][pair];
            float left_even = widened(both << 16), left_odd = widened(both & 0xffff0000u);
            for (int column = 0; column < ROW_WORDS; column++) {
                uint32_t word = right->words[pair][column];
                even[column] = __builtin_fmaf(left_even, widened(word << 16), even[column]);
                odd[column] = __builtin_fmaf(left_odd, widened(word & 0xffff0000u), odd[column]);
            }
        }
        for (int column = 0; column < ROW_WORDS; column++)
            result->floats[row][column] += even[column] + odd[column];
    }
    _mm_setcsr(before);
}

static int32_t signed_or_not(uint8_t byte, bool is_signed)
{
    return is_signed ? (int8_t)byte : byte;
}

static void multiply_int8(const struct instruction *wanted, bool left_signed, bool right_signed)
{
    union tile *result = &tiles[wanted->first];
    const union tile *left = &tiles[wanted->second], *right = &tiles[wanted->third];
    for (int row = 0; row < configuration.rows[wanted->first]; row++)
        for (int place = 0; place < configuration.row_bytes[wanted->second]; place++) {
            int32_t factor = signed_or_not(left->bytes[row][place], left_signed);
            for (int column = 0; column < ROW_WORDS; column++) {
                uint8_t other = right->bytes[place / 4][4 * column + place % 4];
                result->words[row][column] += (uint32_t)(factor * signed_or_not(other, right_signed));
            }
        }
}

static bool execute(const struct instruction *wanted)
{
    switch (wanted->operation) {
    case LDTILECFG:
        return configure(wanted->address);
    case STTILECFG:
        memcpy(wanted->address, &configuration, sizeof configuration);
        return true;
    case TILERELEASE:
        memset(&configuration, 0, sizeof configuration);
        memset(tiles, 0, sizeof tiles);
        return true;
    default:
        break;
    }
    if (wanted->operation >= TDPBF16PS ? !multipliable(wanted) : !configured(wanted->first))
        return false;
    switch (wanted->operation) {
    case TILEZERO: memset(&tiles[wanted->first], 0, sizeof *tiles); break;
    case TILELOADD:
    case TILELOADDT1: load(wanted); break;
    case TILESTORED: store(wanted); break;
    case TDPBF16PS: multiply_bf16(wanted); break;
    case TDPBSSD: multiply_int8(wanted, true, true); break;
    case TDPBSUD: multiply_int8(wanted, true, false); break;
    case TDPBUSD: multiply_int8(wanted, false, true); break;
    case TDPBUUD: multiply_int8(wanted, false, false); break;
    default: return false;
    }
    return true;
}

static void on_illegal_instruction(int number, siginfo_t *information, void *context)
{
    (void)information;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct instruction found;
    bool any = false;
    /* Neighbours are executed at once, for a signal costs more than an instruction. */
    while (decode(&found, (const uint8_t *)registers[REG_RIP], registers) && execute(&found)) {
        __atomic_fetch_add(&records[found.operation].count, 1, __ATOMIC_RELAXED);
        registers[REG_RIP] += found.length;
        any = true;
    }
    if (!any)
        signal(number, SIG_DFL); /* the same instruction raises the signal again, and now ends the process */
}

long syscall(long number, ...)
{
    long words[6], result;
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        words[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_arch_prctl && words[0] == ARCH_REQ_XCOMP_PERM && words[1] == XTILEDATA)
        return 0;
    register long fourth __asm__("r10") = words[3], fifth __asm__("r8") = words[4], sixth __asm__("r9") = words[5];
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(words[0]), "S"(words[1]), "d"(words[2]), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    if ((unsigned long)result < -(unsigned long)LARGEST_ERROR)
        return result;
    errno = (int)-result;
    return -1;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("AMX_COUNTS");
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (file >= 0) {
        void *shared = MAP_FAILED;
        if (ftruncate(file, sizeof own_records) == 0)
            shared = mmap(NULL, sizeof own_records, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        if (shared == MAP_FAILED)
            abort(); /* who asked for counts must not take their absence for zero */
        records = shared;
        for (int i = 0; i < OPERATIONS; i++) {
            memcpy(records[i].feature, own_records[i].feature, sizeof records[i].feature);
            memcpy(records[i].name, own_records[i].name, sizeof records[i].name);
        }
    } else if (path) {
        abort();
    }
    struct sigaction action = {.sa_sigaction = on_illegal_instruction, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGILL, &action, NULL);
}
