// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"math"
)

// alpha is what a one-sided bound of a single look is wrong by: 95 % confidence.
const alpha = 0.05

// Upper is the Clopper-Pearson upper bound of the share of good boards, 95 %, one-sided
// (Clopper and Pearson, Biometrika 26, 1934): were the share larger, as many failures
// or more would be seen in less than one of 20 such trials. 1 where none failed.
func Upper(good, failed int) float64 {
	if failed <= 0 {
		return 1
	}
	return betaInverse(1-alpha, float64(good)+1, float64(failed))
}

// Lower is the lower bound of the same kind; 0 where none is good.
func Lower(good, failed int) float64 {
	if good <= 0 {
		return 0
	}
	return betaInverse(alpha, float64(good), float64(failed)+1)
}

// betaInverse finds x with I_x(a, b) = p by bisection: 60 halvings are more than a
// float64 has digits near 1.
func betaInverse(p, a, b float64) float64 {
	lo, hi := 0.0, 1.0
	for range 60 {
		if mid := (lo + hi) / 2; beta(mid, a, b) < p {
			lo = mid
		} else {
			hi = mid
		}
	}
	return (lo + hi) / 2
}

// beta is the regularized incomplete beta function I_x(a, b): the continued fraction of
// DLMF 8.17.22, on the side of the mean where it converges fast.
func beta(x, a, b float64) float64 {
	if x <= 0 {
		return 0
	}
	if x >= 1 {
		return 1
	}
	if x > (a+1)/(a+b+2) {
		return 1 - beta(1-x, b, a)
	}
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	front := math.Exp(lab - la - lb + a*math.Log(x) + b*math.Log1p(-x))
	return front * fraction(x, a, b) / a
}

// fraction evaluates the continued fraction by Lentz's method. It needs about the root
// of max(a, b) terms; 2,000 are enough for 100,000 boards.
func fraction(x, a, b float64) float64 {
	const tiny, eps = 1e-300, 1e-15
	keep := func(v float64) float64 {
		if math.Abs(v) < tiny {
			return tiny
		}
		return v
	}
	c, d := 1.0, 1/keep(1-(a+b)*x/(a+1))
	h := d
	for i := 1; i <= 2000; i++ {
		m := float64(i)
		even := m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		d, c = 1/keep(1+even*d), keep(1+even/c)
		h *= d * c
		odd := -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		d, c = 1/keep(1+odd*d), keep(1+odd/c)
		h *= d * c
		if math.Abs(d*c-1) < eps {
			break
		}
	}
	return h
}

// Percent writes a share: 86.1 %, 99.74 %. What is not all is never written as 100 %.
func Percent(v float64) string {
	p := 100 * v
	switch {
	case p >= 100:
		return "100 %"
	case p > 99.5:
		return fmt.Sprintf("%.2f %%", math.Min(p, 99.99))
	}
	return fmt.Sprintf("%.1f %%", p)
}
