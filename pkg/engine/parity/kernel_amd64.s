#include "textflag.h"

// Blocks come as an array of Go slices, of 24 bytes each with the pointer
// first. All sums of a piece stay in registers until all blocks are in them:
// each source is read once, each sum written once.

// func xorAVX2(dst []byte, srcs [][]byte, size int)
// Preconditions: size is a multiple of 256 and not zero, nor is len(srcs).
TEXT ·xorAVX2(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ srcs_base+24(FP), SI
	MOVQ srcs_len+32(FP), CX
	MOVQ size+48(FP), DX
	XORQ AX, AX

piece:
	MOVQ    (SI), R8
	VMOVDQU 0(R8)(AX*1), Y0
	VMOVDQU 32(R8)(AX*1), Y1
	VMOVDQU 64(R8)(AX*1), Y2
	VMOVDQU 96(R8)(AX*1), Y3
	VMOVDQU 128(R8)(AX*1), Y4
	VMOVDQU 160(R8)(AX*1), Y5
	VMOVDQU 192(R8)(AX*1), Y6
	VMOVDQU 224(R8)(AX*1), Y7
	MOVQ    SI, R9
	MOVQ    CX, R10
	JMP     next

source:
	MOVQ  (R9), R8
	VPXOR 0(R8)(AX*1), Y0, Y0
	VPXOR 32(R8)(AX*1), Y1, Y1
	VPXOR 64(R8)(AX*1), Y2, Y2
	VPXOR 96(R8)(AX*1), Y3, Y3
	VPXOR 128(R8)(AX*1), Y4, Y4
	VPXOR 160(R8)(AX*1), Y5, Y5
	VPXOR 192(R8)(AX*1), Y6, Y6
	VPXOR 224(R8)(AX*1), Y7, Y7

next:
	ADDQ $24, R9
	DECQ R10
	JNZ  source

	VMOVDQU Y0, 0(DI)(AX*1)
	VMOVDQU Y1, 32(DI)(AX*1)
	VMOVDQU Y2, 64(DI)(AX*1)
	VMOVDQU Y3, 96(DI)(AX*1)
	VMOVDQU Y4, 128(DI)(AX*1)
	VMOVDQU Y5, 160(DI)(AX*1)
	VMOVDQU Y6, 192(DI)(AX*1)
	VMOVDQU Y7, 224(DI)(AX*1)
	ADDQ    $256, AX
	CMPQ    AX, DX
	JB      piece
	VZEROUPPER
	RET

// func xorAVX512(dst []byte, srcs [][]byte, size int)
// Preconditions: size is a multiple of 256 and not zero, nor is len(srcs).
TEXT ·xorAVX512(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ srcs_base+24(FP), SI
	MOVQ srcs_len+32(FP), CX
	MOVQ size+48(FP), DX
	XORQ AX, AX

piece:
	MOVQ      (SI), R8
	VMOVDQU64 0(R8)(AX*1), Z0
	VMOVDQU64 64(R8)(AX*1), Z1
	VMOVDQU64 128(R8)(AX*1), Z2
	VMOVDQU64 192(R8)(AX*1), Z3
	MOVQ      SI, R9
	MOVQ      CX, R10
	JMP       next

source:
	MOVQ   (R9), R8
	VPXORQ 0(R8)(AX*1), Z0, Z0
	VPXORQ 64(R8)(AX*1), Z1, Z1
	VPXORQ 128(R8)(AX*1), Z2, Z2
	VPXORQ 192(R8)(AX*1), Z3, Z3

next:
	ADDQ $24, R9
	DECQ R10
	JNZ  source

	VMOVDQU64 Z0, 0(DI)(AX*1)
	VMOVDQU64 Z1, 64(DI)(AX*1)
	VMOVDQU64 Z2, 128(DI)(AX*1)
	VMOVDQU64 Z3, 192(DI)(AX*1)
	ADDQ      $256, AX
	CMPQ      AX, DX
	JB        piece
	VZEROUPPER
	RET

// DOUBLE multiplies the bytes of Q by 2: those whose highest bit falls out have
// 0x1d added. Y14 is zero, Y15 is 0x1d in each byte.
#define DOUBLE(Q, MASK) \
	VPCMPGTB Q, Y14, MASK; \
	VPADDB   Q, Q, Q;      \
	VPAND    Y15, MASK, MASK; \
	VPXOR    MASK, Q, Q

// func pqAVX2(p, q []byte, data [][]byte, size int)
// Preconditions: size is a multiple of 128 and not zero, nor is len(data).
TEXT ·pqAVX2(SB), NOSPLIT, $0-80
	MOVQ         p_base+0(FP), DI
	MOVQ         q_base+24(FP), BX
	MOVQ         data_base+48(FP), SI
	MOVQ         data_len+56(FP), CX
	MOVQ         size+72(FP), DX
	MOVQ         $0x1d1d1d1d1d1d1d1d, R8
	MOVQ         R8, X15
	VPBROADCASTQ X15, Y15
	VPXOR        Y14, Y14, Y14
	LEAQ         -3(CX)(CX*2), R11
	LEAQ         (SI)(R11*8), SI       // the last chunk: Horner's scheme
	XORQ         AX, AX

piece:
	MOVQ  SI, R9
	MOVQ  CX, R10
	MOVQ  (R9), R8
	TESTQ R8, R8
	JZ    zeros

	VMOVDQU 0(R8)(AX*1), Y0
	VMOVDQU 32(R8)(AX*1), Y1
	VMOVDQU 64(R8)(AX*1), Y2
	VMOVDQU 96(R8)(AX*1), Y3
	VMOVDQA Y0, Y4
	VMOVDQA Y1, Y5
	VMOVDQA Y2, Y6
	VMOVDQA Y3, Y7
	JMP     next

zeros:
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	VPXOR Y4, Y4, Y4
	VPXOR Y5, Y5, Y5
	VPXOR Y6, Y6, Y6
	VPXOR Y7, Y7, Y7
	JMP   next

chunk:
	DOUBLE(Y4, Y12)
	DOUBLE(Y5, Y13)
	DOUBLE(Y6, Y12)
	DOUBLE(Y7, Y13)
	MOVQ  (R9), R8
	TESTQ R8, R8
	JZ    next

	VMOVDQU 0(R8)(AX*1), Y8
	VMOVDQU 32(R8)(AX*1), Y9
	VMOVDQU 64(R8)(AX*1), Y10
	VMOVDQU 96(R8)(AX*1), Y11
	VPXOR   Y8, Y0, Y0
	VPXOR   Y9, Y1, Y1
	VPXOR   Y10, Y2, Y2
	VPXOR   Y11, Y3, Y3
	VPXOR   Y8, Y4, Y4
	VPXOR   Y9, Y5, Y5
	VPXOR   Y10, Y6, Y6
	VPXOR   Y11, Y7, Y7

next:
	SUBQ $24, R9
	DECQ R10
	JNZ  chunk

	VMOVDQU Y0, 0(DI)(AX*1)
	VMOVDQU Y1, 32(DI)(AX*1)
	VMOVDQU Y2, 64(DI)(AX*1)
	VMOVDQU Y3, 96(DI)(AX*1)
	VMOVDQU Y4, 0(BX)(AX*1)
	VMOVDQU Y5, 32(BX)(AX*1)
	VMOVDQU Y6, 64(BX)(AX*1)
	VMOVDQU Y7, 96(BX)(AX*1)
	ADDQ    $128, AX
	CMPQ    AX, DX
	JB      piece
	VZEROUPPER
	RET

// func pqGFNI(p, q []byte, data [][]byte, size int)
// Preconditions: size is a multiple of 256 and not zero, nor is len(data).
TEXT ·pqGFNI(SB), NOSPLIT, $0-80
	MOVQ         p_base+0(FP), DI
	MOVQ         q_base+24(FP), BX
	MOVQ         data_base+48(FP), SI
	MOVQ         data_len+56(FP), CX
	MOVQ         size+72(FP), DX
	MOVQ         $0x8001828488102040, R8 // times 2, as a matrix of bits
	VPBROADCASTQ R8, Z15
	LEAQ         -3(CX)(CX*2), R11
	LEAQ         (SI)(R11*8), SI         // the last chunk: Horner's scheme
	XORQ         AX, AX

piece:
	MOVQ  SI, R9
	MOVQ  CX, R10
	MOVQ  (R9), R8
	TESTQ R8, R8
	JZ    zeros

	VMOVDQU64 0(R8)(AX*1), Z0
	VMOVDQU64 64(R8)(AX*1), Z1
	VMOVDQU64 128(R8)(AX*1), Z2
	VMOVDQU64 192(R8)(AX*1), Z3
	VMOVDQA64 Z0, Z4
	VMOVDQA64 Z1, Z5
	VMOVDQA64 Z2, Z6
	VMOVDQA64 Z3, Z7
	JMP       next

zeros:
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	VPXORQ Z2, Z2, Z2
	VPXORQ Z3, Z3, Z3
	VPXORQ Z4, Z4, Z4
	VPXORQ Z5, Z5, Z5
	VPXORQ Z6, Z6, Z6
	VPXORQ Z7, Z7, Z7
	JMP    next

chunk:
	VGF2P8AFFINEQB $0, Z15, Z4, Z4
	VGF2P8AFFINEQB $0, Z15, Z5, Z5
	VGF2P8AFFINEQB $0, Z15, Z6, Z6
	VGF2P8AFFINEQB $0, Z15, Z7, Z7
	MOVQ           (R9), R8
	TESTQ          R8, R8
	JZ             next

	VMOVDQU64 0(R8)(AX*1), Z8
	VMOVDQU64 64(R8)(AX*1), Z9
	VMOVDQU64 128(R8)(AX*1), Z10
	VMOVDQU64 192(R8)(AX*1), Z11
	VPXORQ    Z8, Z0, Z0
	VPXORQ    Z9, Z1, Z1
	VPXORQ    Z10, Z2, Z2
	VPXORQ    Z11, Z3, Z3
	VPXORQ    Z8, Z4, Z4
	VPXORQ    Z9, Z5, Z5
	VPXORQ    Z10, Z6, Z6
	VPXORQ    Z11, Z7, Z7

next:
	SUBQ $24, R9
	DECQ R10
	JNZ  chunk

	VMOVDQU64 Z0, 0(DI)(AX*1)
	VMOVDQU64 Z1, 64(DI)(AX*1)
	VMOVDQU64 Z2, 128(DI)(AX*1)
	VMOVDQU64 Z3, 192(DI)(AX*1)
	VMOVDQU64 Z4, 0(BX)(AX*1)
	VMOVDQU64 Z5, 64(BX)(AX*1)
	VMOVDQU64 Z6, 128(BX)(AX*1)
	VMOVDQU64 Z7, 192(BX)(AX*1)
	ADDQ      $256, AX
	CMPQ      AX, DX
	JB        piece
	VZEROUPPER
	RET
