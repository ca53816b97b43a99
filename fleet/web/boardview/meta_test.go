// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package boardview

import (
	"net/url"
	"reflect"
	"testing"

	"fulmar/schema/rest"
)

// FuzzMeta: no form breaks the reading, what is taken is a place on Earth, and what was
// taken comes back the same from the form that it fills in.
func FuzzMeta(f *testing.F) {
	for _, s := range []string{"site=hall-4&labels=a%3D1%0Ab%3D2&lat=48.1&lon=11&accuracy=3&power=25", "lat=NaN&lon=Inf", "labels=%3D", "lat=1", "power=1e400", "version=-9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		var form metaForm
		m := form.parse(v)
		if len(form.Wrong) > 0 {
			return
		}
		if l := m.Location; l != nil && !(l.Lat >= -90 && l.Lat <= 90 && l.Lon >= -180 && l.Lon <= 180) || m.PowerBudget < 0 || m.LocationAccuracy < 0 {
			t.Fatalf("%q is taken: %+v", raw, m)
		}
		again := formOf(&m)
		var second metaForm
		back := second.parse(url.Values{"site": {again.Site}, "description": {again.Description}, "labels": {again.Labels}, "lat": {again.Lat}, "lon": {again.Lon}, "accuracy": {again.Accuracy}, "power": {again.Power}})
		if len(second.Wrong) > 0 || !same(m, back) {
			t.Errorf("%q: %+v came back as %+v, %v", raw, m, back, second.Wrong)
		}
	})
}

func same(a, b rest.Meta) bool {
	a.Version, b.Version = 0, 0
	return reflect.DeepEqual(a, b)
}
